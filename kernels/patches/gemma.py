"""Gemma."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(
    models=("GemmaForCausalLM", "GemmaModel"),
    places=decoder("Gemma", swiglu=(), geglu=("GemmaMLP",)),
    norm_offset=1.0,
)
