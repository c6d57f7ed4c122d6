"""ModernBERT as an encoder (Warner et al. 2024): rotary positions, a window in two of three layers."""

from __future__ import annotations

from runner.registry.family import Family
from runner.registry.language import Language

FAMILY = Family(
    name="modernbert",
    title="ModernBERT, encoder",
    model_types=("modernbert",),
    architectures=("ModernBertModel",),
    name_pattern=r"modern-?bert",
    task="encoder",
    features="tokens",
    limits=(
        "pooling and normalisation lie in modules.json of a sentence encoder: they are no part of these facts",
        "the window of 128 is 64 tokens to either side",
    ),
    defaults={
        "vocab_size": 50368,
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "max_position_embeddings": 8192,
        "norm_eps": 1e-05,
        "hidden_activation": "gelu",
        "tie_word_embeddings": True,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "local_attention": 128,
        "global_attn_every_n_layers": 3,
        "attention_bias": False,
        "mlp_bias": False,
    },
    language=Language(
        gguf="modern-bert",
        patches=("attention", "layer_norm", "rope", "geglu", "lora_linear"),
        lora=("Wqkv", "Wo", "Wi"),
        norm="layer",
        norm_place="before",
        norm_eps="norm_eps",
        gated=True,
        bias={"qkv": "attention_bias", "o": "attention_bias", "mlp": "mlp_bias"},
        attention="both ways",
        positions="rope",
        head=False,
        template="none",
        activation="hidden_activation",
        window="thirds",
    ),
)
