"""Mixtral: its gates are inside the experts."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(
    models=("MixtralForCausalLM", "MixtralModel"),
    places=decoder("Mixtral", swiglu=(), experts=("MixtralExperts",)),
    without={"swiglu": "all its gates are inside the experts: the patch experts takes them"},
)
