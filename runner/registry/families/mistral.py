"""Mistral (Jiang et al. 2023)."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import Language

FAMILY = Family(
    name="mistral",
    title="Mistral, dense",
    model_types=("mistral",),
    architectures=("MistralForCausalLM",),
    name_pattern=r"mistral[-_](?!.*small-3\.[1-9])|zephyr",
    task="causal",
    features="tokens",
    limits=("tokenizers that are only tekken.json are not read",),
    defaults={
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-06,
        "num_key_value_heads": 8,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
    },
    language=Language(
        gguf="llama",
        window="all",
        stops=("</s>",),
    ),
)
