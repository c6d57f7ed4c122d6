"""MPNet as an encoder."""

from __future__ import annotations

from runner.kernels.places import Family

FAMILY = Family(
    models=("MPNetModel",),
    places={"layer_norm": ("LayerNorm",)},
    without={"attention": "its position bias needs the whole score matrix"},
)
