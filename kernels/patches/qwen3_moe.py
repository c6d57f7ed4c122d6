"""Qwen3 with experts; layers without experts have an MLP."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(
    models=("Qwen3MoeForCausalLM", "Qwen3MoeModel"),
    places=decoder("Qwen3Moe", qk_norm_rope=("Qwen3MoeAttention",), experts=("Qwen3MoeExperts",)),
)
