"""Weights above 2 GiB, where a protobuf ends. The graph is real; it is not written, which takes 5 GB of disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf.message import EncodeError

from runner.asr.quantise import export, graph

pytestmark = pytest.mark.slow  # 2 GiB of zeros


@pytest.fixture(scope="module")
def large() -> onnx.ModelProto:
    made = onnx.helper.make_model(onnx.helper.make_graph([], "large", [], []))
    zeros = bytes(1 << 28)
    for at in range(8):
        weight = made.graph.initializer.add(name=f"w{at}", data_type=onnx.TensorProto.INT8, dims=[len(zeros)])
        weight.raw_data = zeros
    with pytest.raises(EncodeError):
        made.ByteSize()
    return made


def test_large_weights_go_into_a_file_of_their_own(
    large: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(onnx, "save_model", lambda *_, **options: asked.update(options))
    assert export.save(large, tmp_path) == ["model.onnx", "model.onnx.data"]
    assert asked == {"save_as_external_data": True, "location": "model.onnx.data"}


def test_large_graphs_are_rounded_beside_their_weights(large: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def rounded(given: onnx.ModelProto, path: str, **options: Any) -> None:
        asked.update(options)
        onnx.save_model(onnx.helper.make_model(onnx.helper.make_graph([], "small", [], [])), path)

    monkeypatch.setattr(graph, "quantize_dynamic", rounded)
    graph.products_in_int8(large)
    assert asked["use_external_data_format"] is True
