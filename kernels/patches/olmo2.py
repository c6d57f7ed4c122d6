"""OLMo 2: the norms over all queries and keys are RMS norms like the others."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(models=("Olmo2ForCausalLM", "Olmo2Model"), places=decoder("Olmo2"))
