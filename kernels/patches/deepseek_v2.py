"""DeepSeek-V2: the first layers and the experts that all tokens share are MLPs."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(
    models=("DeepseekV2ForCausalLM", "DeepseekV2Model"),
    places=decoder("DeepseekV2", rope=(), experts=("DeepseekV2Experts",)),
    without={"rope": "it turns neighbouring features as complex numbers, and only a part of each head"},
)
