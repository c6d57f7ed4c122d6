"""A CTC model as one ONNX graph: normalised samples or features in, logits out, batch and time of any size.

Normalising stays outside, so that every engine hears the same; there is no mask, so a batch holds equal lengths.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from runner.asr.features import Features
from runner.asr.quantise.session import FILE, INPUT, Session

OUTPUT = "logits"
OPSET = 17  # the first with LayerNormalization as one operator, which TensorRT can keep in fp32
SHAPES = ((2, 2.0), (1, 1.0), (4, 3.0))  # batch and seconds held against torch; the first is traced, as 1 is special
BESIDE = 1_800_000_000  # bytes above which weights go into a file of their own: a protobuf ends at 2 GiB


class _Logits(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**{self.model.main_input_name: x}).logits
        return logits


def examples(features: Features, *, rate: int) -> list[torch.Tensor]:
    """Seeded noise of ``SHAPES`` as the model takes it: [batch, samples] or [batch, frames, bins]."""
    random = np.random.default_rng(0)
    return [
        torch.stack([features(random.normal(scale=0.1, size=round(s * rate)).astype(np.float32)) for _ in range(batch)])
        for batch, s in SHAPES
    ]


def export(model: Any, example: torch.Tensor) -> onnx.ModelProto:
    """The graph of ``model``, which is in fp32 and on the CPU.

    By the exporter that traces, not torch's newer one: it takes 1 to 18 s instead of a minute, and does not take the
    batch for a constant. What it wrongly takes for one shows in ``parity``, which looks at other shapes.
    """
    wrapper = _Logits(model).eval()  # the exporter puts back the mode that it finds
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's age and of the trace
        path = Path(folder, FILE)
        torch.onnx.export(
            wrapper,
            (example,),
            str(path),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch", 1: "time"}, OUTPUT: {0: "batch", 1: "frames"}},
            opset_version=OPSET,
            dynamo=False,
        )
        made = onnx.load(str(path))
    for node in made.graph.node:
        node.ClearField("doc_string")  # places in our sources
    return made


def save(graph: onnx.ModelProto, folder: Path) -> list[str]:
    """Write ``graph``; the names of the files, two for a large one."""
    _shorten(graph.graph)
    beside = f"{FILE}.data" if weight_bytes(graph) > BESIDE else None
    onnx.save_model(graph, str(folder / FILE), save_as_external_data=beside is not None, location=beside)
    return [FILE] + ([] if beside is None else [beside])


def weight_bytes(graph: onnx.ModelProto) -> int:
    """Bytes of the weights, one by one: ``ByteSize`` of a whole graph raises from 2 GiB on."""
    return sum(weight.ByteSize() for weight in graph.graph.initializer)


def _shorten(graph: onnx.GraphProto) -> None:
    """Number what lies between input and output: the tracer's names take 0.1 MB, an eighth of the quickstart's model.

    A graph with graphs inside stays as it is: those name what lies around them.
    """
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return
    short = {value.name: value.name for value in (*graph.input, *graph.output)} | {"": ""}  # "": an input left out
    del graph.value_info[:]
    for weight in graph.initializer:
        weight.name = short.setdefault(weight.name, f"w{len(short)}")
    for node in graph.node:
        node.ClearField("name")
        node.input[:] = [short[name] for name in node.input]
        node.output[:] = [short.setdefault(name, f"v{len(short)}") for name in node.output]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far ONNX Runtime is from torch on one shape."""

    shape: tuple[int, ...]
    difference: float  # largest, as a share of the logits' deviation
    same: float  # share of frames with the same best symbol


def parity(model: Any, session: Session, examples: Sequence[torch.Tensor]) -> list[Parity]:
    """Hold ``session`` against ``model`` on each of ``examples``."""
    found = []
    for example in examples:
        name = model.main_input_name
        with torch.inference_mode():
            wanted, got = (one(**{name: example}).logits for one in (model, session))
        found.append(
            Parity(
                shape=tuple(example.shape),
                difference=float(f"{(got - wanted).abs().max() / wanted.std():.1e}"),
                same=round(float((got.argmax(-1) == wanted.argmax(-1)).float().mean()), 4),
            )
        )
    return found
