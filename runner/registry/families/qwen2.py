"""Qwen2 and Qwen2.5 (Yang et al. 2024)."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import Language

FAMILY = Family(
    name="qwen2",
    title="Qwen2 and Qwen2.5, dense",
    model_types=("qwen2",),
    architectures=("Qwen2ForCausalLM",),
    name_pattern=r"qwen-?2(\.5)?(?!.*(vl|moe|audio|omni|a14b))|deepseek-r1-distill-qwen",
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
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": 28,
    },
    language=Language(
        gguf="qwen2",
        bias={"qkv": True},
        window="after",
        stops=("<|im_end|>", "<|endoftext|>"),
    ),
)
