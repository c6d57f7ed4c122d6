"""Granite 3, dense: logits are divided by a number of the config."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(
    models=("GraniteForCausalLM", "GraniteModel"),
    places=decoder("Granite"),
    divisor="logits_scaling",
)
