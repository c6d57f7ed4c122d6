"""Qwen3, dense."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(models=("Qwen3ForCausalLM", "Qwen3Model"), places=decoder("Qwen3", qk_norm_rope=("Qwen3Attention",)))
