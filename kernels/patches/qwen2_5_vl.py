"""Qwen2.5-VL: the tower for images has norms of the same class, and stays as it is."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(
    models=("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLModel", "Qwen2_5_VLTextModel"),
    places=decoder("Qwen2_5_VL", swiglu=("Qwen2MLP",), linear_cross_entropy=("Qwen2_5_VLForConditionalGeneration",)),
    outside="visual",
)
