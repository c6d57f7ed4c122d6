"""DeepSeek-V3 and R1: the first layers and the experts that all tokens share are MLPs."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(
    models=("DeepseekV3ForCausalLM", "DeepseekV3Model"),
    places=decoder("DeepseekV3", rope=(), experts=("DeepseekV3Experts",)),
    without={"rope": "it turns neighbouring features, and only a part of each head"},
)
