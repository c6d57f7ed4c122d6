"""Qwen2 and Qwen2.5, dense."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(models=("Qwen2ForCausalLM", "Qwen2Model"), places=decoder("Qwen2"))
