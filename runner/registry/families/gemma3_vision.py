"""Gemma 3 with images (Gemma team 2025)."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import QK_DECODER, Language

FAMILY = Family(
    name="gemma3-vision",
    title="Gemma 3, text and images",
    model_types=("gemma3",),
    architectures=("Gemma3ForConditionalGeneration",),
    name_pattern=r"gemma-?3-(4b|12b|27b)",
    task="image-text",
    features="tokens",
    limits=(
        "adapters, patches and the forecast are of the text model; the tower for images stays as it is",
        "fp16 overflows in its layers: bf16 or fp32",
    ),
    structure="vision_config",
    defaults={
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-06,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "attention_bias": False,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "_sliding_window_pattern": 6,
        "final_logit_softcapping": None,
        "attn_logit_softcapping": None,
    },
    language=Language(
        gguf="gemma3",
        patches=tuple("geglu" if name == "swiglu" else name for name in QK_DECODER),
        norm="rms, 1 + weight",
        norm_place="around",
        activation="hidden_activation",
        qk_norm="head",
        bias={"qkv": "attention_bias", "o": "attention_bias"},
        window="pattern",
        scales=("query_pre_attn_scalar",),
        stops=("<end_of_turn>", "<eos>"),
        lora_inside="language_model",
        template="the processor's own",
    ),
)
