"""Gemma 3 with images: the text model inside is Gemma 3's, the tower for images stays as it is."""

from __future__ import annotations

from runner.kernels.places import Family

FAMILY = Family(
    models=("Gemma3ForConditionalGeneration", "Gemma3Model"),
    places={"linear_cross_entropy": ("Gemma3ForConditionalGeneration",)},
    inner=True,
)
