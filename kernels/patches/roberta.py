"""RoBERTa as an encoder."""

from __future__ import annotations

from runner.kernels.places import Family

FAMILY = Family(
    models=("RobertaModel",),
    places={"attention": ("RobertaSelfAttention",), "layer_norm": ("LayerNorm",)},
)
