"""ModernBERT as an encoder: gate and up are the halves of one projection."""

from __future__ import annotations

from runner.kernels.places import Family

FAMILY = Family(
    models=("ModernBertModel",),
    places={
        "attention": ("ModernBertAttention",),
        "layer_norm": ("LayerNorm",),
        "rope": ("ModernBertAttention",),
        "geglu": ("ModernBertMLP",),
    },
)
