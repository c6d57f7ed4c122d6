"""Qwen2-VL: the tower for images stays as it is."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(
    models=("Qwen2VLForConditionalGeneration", "Qwen2VLModel", "Qwen2VLTextModel"),
    places=decoder("Qwen2VL", swiglu=("Qwen2MLP",), linear_cross_entropy=("Qwen2VLForConditionalGeneration",)),
    outside="visual",
)
