"""Llama 2, 3 and 3.x as text models (Touvron et al. 2023; Llama team 2024)."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import Language

FAMILY = Family(
    name="llama",
    title="Llama 2, 3 and 3.x",
    model_types=("llama",),
    architectures=("LlamaForCausalLM",),
    name_pattern=r"llama(?!.*(vision|[-_ ]?4[-_]|guard-4))|vicuna|tinyllama|smollm2",
    task="causal",
    features="tokens",
    limits=("Llama 4 and the vision models of 3.2 are other model types",),
    defaults={
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-06,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
    },
    language=Language(
        gguf="llama",
        bias={"qkv": "attention_bias", "o": "attention_bias", "mlp": "mlp_bias"},
        stops=("</s>", "<|eot_id|>", "<|eom_id|>"),
    ),
)
