"""Phi-3, Phi-3.5 and Phi-4, dense: gate and up are the halves of one projection."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(models=("Phi3ForCausalLM", "Phi3Model"), places=decoder("Phi3"))
