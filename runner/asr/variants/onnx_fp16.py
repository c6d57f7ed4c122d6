"""`onnx-fp16`: the model as ONNX, weights stored in fp16."""

from __future__ import annotations

from pathlib import Path

from runner.asr.pieces import Source
from runner.asr.quantise import graph, runtime
from runner.asr.quantise.base import Base, Made, Opened
from runner.asr.quantise.export import examples, export
from runner.registry.variant import Variant

WHAT = "an ONNX graph whose weights are stored in fp16; turned back at load and computed in fp32 by ONNX Runtime"


def quantise(base: Base, folder: Path) -> Made:
    """Export, shrink, hold against torch."""
    shapes = examples(base.features, rate=base.rate)
    made = export(base.folded(), shapes[0])
    graph.store_in_fp16(made)
    return runtime.write(made, base.folded(), folder, shapes=shapes, most=0.1)


def load(variant: Variant, source: Source, *, device: str) -> Opened:
    """A session of ONNX Runtime."""
    return runtime.open_session(source, device=device, precision="fp32", why=WHAT)
