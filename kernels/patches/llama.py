"""Llama 2, 3 and 3.x."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(models=("LlamaForCausalLM", "LlamaModel"), places=decoder("Llama"))
