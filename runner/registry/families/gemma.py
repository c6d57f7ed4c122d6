"""Gemma (Gemma team 2024)."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import GEGLU_DECODER, Language

FAMILY = Family(
    name="gemma",
    title="Gemma",
    model_types=("gemma",),
    architectures=("GemmaForCausalLM",),
    name_pattern=r"gemma-(1\.1-)?[27]b",
    task="causal",
    features="tokens",
    defaults={
        "vocab_size": 256000,
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-06,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "rope_theta": 10000.0,
        "attention_bias": False,
    },
    language=Language(
        gguf="gemma",
        patches=GEGLU_DECODER,
        norm="rms, 1 + weight",
        bias={"qkv": "attention_bias", "o": "attention_bias"},
        stops=("<end_of_turn>", "<eos>"),
    ),
)
