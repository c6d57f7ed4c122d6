"""BERT as an encoder."""

from __future__ import annotations

from runner.kernels.places import Family

FAMILY = Family(
    models=("BertModel",),
    places={"attention": ("BertSelfAttention",), "layer_norm": ("LayerNorm",)},
)
