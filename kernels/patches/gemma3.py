"""Gemma 3 as a text model."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(
    models=("Gemma3ForCausalLM", "Gemma3TextModel"),
    places=decoder("Gemma3", swiglu=(), geglu=("Gemma3MLP",), qk_norm_rope=("Gemma3Attention",)),
    norm_offset=1.0,
    softcap="final_logit_softcapping",
)
