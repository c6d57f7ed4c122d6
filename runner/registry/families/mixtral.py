"""Mixtral (Jiang et al. 2024): Mistral with experts."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import ATTENTION, DECODER, Experts, Language

FAMILY = Family(
    name="mixtral",
    title="Mixtral, mixture of experts",
    model_types=("mixtral",),
    architectures=("MixtralForCausalLM",),
    name_pattern=r"mixtral",
    task="causal",
    features="tokens",
    limits=("the experts are stacks of matrices, not linear modules: `auto` and quantisation leave them as they are",),
    defaults={
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-05,
        "num_key_value_heads": 8,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    language=Language(
        gguf="llama",
        patches=(*DECODER, "experts"),
        lora=ATTENTION,
        window="all",
        experts=Experts(count=("num_local_experts",), width="intermediate_size"),
        stops=("</s>",),
    ),
)
