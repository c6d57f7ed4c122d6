"""Granite 3 (IBM 2024): Llama with four multipliers."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import Language

FAMILY = Family(
    name="granite",
    title="Granite 3, dense",
    model_types=("granite",),
    architectures=("GraniteForCausalLM",),
    name_pattern=r"granite(?!.*(moe|hybrid|a400m|a800m|tiny|speech|vision))",
    task="causal",
    features="tokens",
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
        "embedding_multiplier": 1.0,
        "logits_scaling": 1.0,
        "residual_multiplier": 1.0,
        "attention_multiplier": 1.0,
    },
    language=Language(
        gguf="granite",
        bias={"qkv": "attention_bias", "o": "attention_bias", "mlp": "mlp_bias"},
        scales=("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"),
        stops=("<|end_of_text|>",),
    ),
)
