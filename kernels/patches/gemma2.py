"""Gemma 2."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(
    models=("Gemma2ForCausalLM", "Gemma2Model"),
    places=decoder("Gemma2", swiglu=(), geglu=("Gemma2MLP",)),
    norm_offset=1.0,
    softcap="final_logit_softcapping",
)
