"""OLMo 2 (OLMo team 2024): norms after each block, and over all queries and keys."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import Language

FAMILY = Family(
    name="olmo2",
    title="OLMo 2",
    model_types=("olmo2",),
    architectures=("Olmo2ForCausalLM",),
    name_pattern=r"olmo-?2",
    task="causal",
    features="tokens",
    defaults={
        "vocab_size": 50304,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-05,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "attention_bias": False,
    },
    language=Language(
        gguf="olmo2",
        norm_place="after",
        qk_norm="projection",
        bias={"qkv": "attention_bias", "o": "attention_bias"},
        stops=("<|endoftext|>",),
    ),
)
