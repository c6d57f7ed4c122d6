"""SmolLM3: layers without rotary positions are no places for them."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(models=("SmolLM3ForCausalLM", "SmolLM3Model"), places=decoder("SmolLM3"))
