"""Smaller ONNX graphs: products in int8, weights stored in fp16 or int8."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from runner.asr.quantise import rounding
from runner.asr.quantise.export import BESIDE, weight_bytes
from runner.asr.quantise.weights import FEW
from runner.schema.errors import JobError


def products_in_int8(graph: onnx.ModelProto) -> onnx.ModelProto:
    """``graph`` with its products in int8: of MatMul only.

    Activations get one scale for each call, weights one for each output. Convolutions are left: in int8 others
    measured them 10 to 18 times slower, and the first one hears samples of 16 bits.
    """
    said = logging.getLogger()
    said.addFilter(_no_advice)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "int8.onnx")
            quantize_dynamic(
                graph,
                str(path),
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=weight_bytes(graph) > BESIDE,
            )
            return onnx.load(str(path))
    finally:
        said.removeFilter(_no_advice)


def _no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()


def store_in_fp16(graph: onnx.ModelProto) -> None:
    """Keep the weights in fp16; ONNX Runtime turns them back once, at load."""
    for weight, array in _weights(graph):
        small = array.astype(np.float16)
        if not np.isfinite(small).all():
            raise JobError(f"{weight.name} has weights above 65,504, the largest of fp16", failure="ModelInvalid")
        _replace(graph, weight, small, scale=None)


def store_in_int8(graph: onnx.ModelProto) -> None:
    """Keep the convolutions' weights in int8, a scale for each output; ONNX Runtime turns them back once, at load."""
    convolved = {node.input[1] for node in graph.graph.node if node.op_type == "Conv"}
    for weight, array in _weights(graph):
        if weight.name in convolved and array.size >= FEW and array.shape[1] > 1:
            made = rounding.int8(torch.from_numpy(array.copy()))
            scale = made.scale.view(-1, *[1] * (array.ndim - 1))
            _replace(graph, weight, made.values.numpy(), scale=scale.numpy())


def _weights(graph: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, NDArray[np.float32]]]:
    for weight in list(graph.graph.initializer):
        if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims):
            yield weight, numpy_helper.to_array(weight)


def _replace(
    graph: onnx.ModelProto, weight: onnx.TensorProto, stored: NDArray[Any], *, scale: NDArray[np.float32] | None
) -> None:
    """Put ``stored`` in the place of ``weight``, and in front what makes fp32 of it: Cast, and Mul by a scale."""
    name = weight.name
    wide = name if scale is None else f"{name}.wide"
    nodes = [onnx.helper.make_node("Cast", [f"{name}.stored"], [wide], name=f"{name}.cast", to=onnx.TensorProto.FLOAT)]
    graph.graph.initializer.remove(weight)
    graph.graph.initializer.append(numpy_helper.from_array(stored, f"{name}.stored"))
    if scale is not None:
        graph.graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        nodes.append(onnx.helper.make_node("Mul", [wide, f"{name}.scale"], [name], name=f"{name}.mul"))
    for node in reversed(nodes):
        graph.graph.node.insert(0, node)
