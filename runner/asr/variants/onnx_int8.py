"""`onnx-int8`: the model as ONNX, the products of MatMul in int8."""

from __future__ import annotations

from pathlib import Path

from runner.asr.pieces import Source
from runner.asr.quantise import graph, runtime
from runner.asr.quantise.base import Base, Made, Opened
from runner.asr.quantise.export import examples, export
from runner.registry.variant import Variant

WHAT = (
    "an ONNX graph with MatMul in int8, one scale for the activations of each call; "
    "convolutions stored in int8 and computed in fp32"
)


def quantise(base: Base, folder: Path) -> Made:
    """Export, quantise, say how far from torch that is: what it means for texts is measured on the validation data."""
    shapes = examples(base.features, rate=base.rate)
    made = graph.products_in_int8(export(base.folded(), shapes[0]))
    graph.store_in_int8(made)
    return runtime.write(made, base.folded(), folder, shapes=shapes, most=None)


def load(variant: Variant, source: Source, *, device: str) -> Opened:
    """A session of ONNX Runtime."""
    return runtime.open_session(source, device=device, precision="int8", why=WHAT)
