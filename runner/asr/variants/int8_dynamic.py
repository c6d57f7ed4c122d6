"""`int8-dynamic`: the encoder's products in int8, each frame with a scale of its own."""

from __future__ import annotations

from pathlib import Path

from runner.asr.pieces import Source
from runner.asr.quantise import int8, weights
from runner.asr.quantise.base import Base, Made, Opened
from runner.registry.variant import Variant

WHAT = "weights in int8; the encoder's products in int8 too, each frame with a scale of its own; the rest in fp32"


def quantise(base: Base, folder: Path) -> Made:
    """Write the weights in int8."""
    weights.save(weights.rounded(base.model, "int8", group=base.group), folder)
    return Made(weights=[weights.FILE], format="quantised")


def load(variant: Variant, source: Source, *, device: str) -> Opened:
    """The model with int8 products, or with the same weights in fp32 where ``device`` has none."""
    state = weights.read(Path(source.folder))
    model = weights.model_of(state, source)
    if not int8.usable(device):
        return Opened(model=model, source=source, about=int8.NOT_HERE)
    int8.use_dynamic(model, state)
    return Opened(model=model, source=source, settled=True, about={"precision": "int8", "precision_why": WHAT})
