"""`int4-weights`: less room on disk, nothing else."""

from __future__ import annotations

from pathlib import Path

from runner.asr.pieces import Source
from runner.asr.quantise import weights
from runner.asr.quantise.base import Base, Made, Opened
from runner.registry.variant import Variant

WHAT = (
    "products and convolutions in int4, groups of weights share a scale, the head and the second convolution in int8; "
    "turned back into fp32 at load: saves storage, not time"
)


def quantise(base: Base, folder: Path) -> Made:
    """Write the weights in int4 and int8."""
    weights.save(weights.rounded(base.model, "int4", group=base.group), folder)
    return Made(weights=[weights.FILE], format="quantised", settings={"group": base.group})


def load(variant: Variant, source: Source, *, device: str) -> Opened:
    """The model in fp32, with the rounded weights."""
    return Opened(model=weights.model_of(weights.read(Path(source.folder)), source), source=source)
