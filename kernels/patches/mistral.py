"""Mistral, dense."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(models=("MistralForCausalLM", "MistralModel"), places=decoder("Mistral"))
