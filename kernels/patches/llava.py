"""LLaVA: the text model inside has a family of its own, the tower for images stays as it is."""

from __future__ import annotations

from runner.kernels.places import Family

FAMILY = Family(
    models=("LlavaForConditionalGeneration", "LlavaModel"),
    places={"linear_cross_entropy": ("LlavaForConditionalGeneration",)},
    inner=True,
)
