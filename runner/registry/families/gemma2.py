"""Gemma 2 (Gemma team 2024): soft caps, and a window in every other layer."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import GEGLU_DECODER, Language

FAMILY = Family(
    name="gemma2",
    title="Gemma 2",
    model_types=("gemma2",),
    architectures=("Gemma2ForCausalLM",),
    name_pattern=r"gemma-?2-",
    task="causal",
    features="tokens",
    limits=(
        "torch's own attention has no soft cap: without a kernel that has, attention holds whole score matrices",
        "fp16 overflows in its layers: bf16 or fp32",
    ),
    defaults={
        "vocab_size": 256000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-06,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0,
    },
    language=Language(
        gguf="gemma2",
        patches=GEGLU_DECODER,
        norm="rms, 1 + weight",
        norm_place="around",
        activation="hidden_activation",
        bias={"qkv": "attention_bias", "o": "attention_bias"},
        window="even",
        scales=("query_pre_attn_scalar",),
        stops=("<end_of_turn>", "<eos>"),
    ),
)
