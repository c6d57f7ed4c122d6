"""Qwen3 (Yang et al. 2025)."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import QK_DECODER, Language

FAMILY = Family(
    name="qwen3",
    title="Qwen3, dense",
    model_types=("qwen3",),
    architectures=("Qwen3ForCausalLM",),
    name_pattern=r"qwen-?3(?!.*(a3b|a22b|vl|omni|next|\.5))",
    task="causal",
    features="tokens",
    defaults={
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-06,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": 28,
    },
    language=Language(
        gguf="qwen3",
        patches=QK_DECODER,
        qk_norm="head",
        bias={"qkv": "attention_bias", "o": "attention_bias"},
        window="after",
        stops=("<|im_end|>", "<|endoftext|>"),
    ),
)
