"""Qwen2-VL (Wang et al. 2024)."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import Language

FAMILY = Family(
    name="qwen2-vl",
    title="Qwen2-VL, text and images",
    model_types=("qwen2_vl", "qwen2_vl_text"),
    architectures=("Qwen2VLForConditionalGeneration",),
    name_pattern=r"qwen-?2-?vl",
    task="image-text",
    features="tokens",
    limits=("adapters, patches and the forecast are of the text model; the tower for images stays as it is",),
    defaults={
        "vocab_size": 152064,
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-05,
        "num_key_value_heads": 8,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": 1000000.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": 80,
    },
    language=Language(
        gguf="qwen2vl",
        lora_inside="language_model",
        bias={"qkv": True},
        window="after",
        template="the processor's own",
        stops=("<|im_end|>", "<|endoftext|>"),
    ),
)
