"""XLM-RoBERTa as an encoder."""

from __future__ import annotations

from runner.kernels.places import Family

FAMILY = Family(
    models=("XLMRobertaModel",),
    places={"attention": ("XLMRobertaSelfAttention",), "layer_norm": ("LayerNorm",)},
)
