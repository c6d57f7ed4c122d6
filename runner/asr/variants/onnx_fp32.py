"""`onnx-fp32`: the model as ONNX, nothing rounded."""

from __future__ import annotations

from pathlib import Path

from runner.asr.pieces import Source
from runner.asr.quantise import runtime
from runner.asr.quantise.base import Base, Made, Opened
from runner.asr.quantise.export import examples, export
from runner.registry.variant import Variant

WHAT = "an ONNX graph in fp32, computed by ONNX Runtime"


def quantise(base: Base, folder: Path) -> Made:
    """Export and hold against torch."""
    shapes = examples(base.features, rate=base.rate)
    return runtime.write(export(base.folded(), shapes[0]), base.folded(), folder, shapes=shapes, most=1e-3)


def load(variant: Variant, source: Source, *, device: str) -> Opened:
    """A session of ONNX Runtime."""
    return runtime.open_session(source, device=device, precision="fp32", why=WHAT)
