"""SmolLM3 (Hugging Face 2025): every fourth layer without rotary positions."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import Language

FAMILY = Family(
    name="smollm3",
    title="SmolLM3",
    model_types=("smollm3",),
    architectures=("SmolLM3ForCausalLM",),
    name_pattern=r"smollm3",
    task="causal",
    features="tokens",
    defaults={
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-06,
        "num_key_value_heads": 4,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "rope_theta": 2000000.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "no_rope_layer_interval": 4,
        "attention_bias": False,
        "mlp_bias": False,
    },
    language=Language(
        gguf="smollm3",
        bias={"qkv": "attention_bias", "o": "attention_bias", "mlp": "mlp_bias"},
        window="no_rope",
        stops=("<|im_end|>",),
    ),
)
