"""gpt-oss: experts with biases and a clipped gate of their own."""

from __future__ import annotations

from runner.kernels.places import Family, decoder

FAMILY = Family(
    models=("GptOssForCausalLM", "GptOssModel"),
    places=decoder("GptOss", swiglu=(), experts=("GptOssExperts",)),
    without={"swiglu": "its clipped gate is another function, inside the experts"},
)
