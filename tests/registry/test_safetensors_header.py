from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from runner.registry import safetensors_header
from runner.schema.errors import PlanError
from tests.registry import models

WHOLE = models.safetensors(models.TENSORS)


def with_header(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WHOLE)
    header = safetensors_header.read(path)
    assert header.elements == 6 + 48 + 64
    assert header.size == len(WHOLE)
    assert header.tensors["lm_head.weight"].shape == (6, 8)


def test_it_reads_what_the_library_writes(tmp_path: Path) -> None:
    arrays = {"a": numpy.zeros((3, 4), "float16"), "scalar": numpy.zeros((), "float32"), "none": numpy.zeros((0, 7))}
    save_file(arrays, tmp_path / "a.safetensors", metadata={"format": "np"})
    header = safetensors_header.read(tmp_path / "a.safetensors")
    assert {name: tensor.shape for name, tensor in header.tensors.items()} == {k: v.shape for k, v in arrays.items()}
    assert header.elements == 13


BROKEN = {
    "empty": (b"", "fewer than the 8"),
    "length beyond the file": (struct.pack("<Q", 1000) + b"{}", "claims 1000 bytes, but the file has 10"),
    "length beyond reason": (struct.pack("<Q", 2**63) + b"{}", "more than the format allows"),
    "no json": (with_header(b"{nonsense"), "not valid JSON"),
    "no utf-8": (with_header(b'{"\xff": 1}'), "not valid JSON"),
    "nested for ever": (with_header(b"[" * 100_000), "not valid JSON"),
    "a list": (with_header([]), "not a JSON object"),
    "twice the same name": (
        with_header(b'{"a": {"dtype": "F32"}, "a": {"dtype": "F32"}}'),
        "'a' appears twice",
    ),
    "no offsets": (with_header({"a": {"dtype": "F32", "shape": [1]}}), "lacks exactly"),
    "an entry that is no object": (with_header({"a": 5}), "lacks exactly"),
    "unknown dtype": (with_header({"a": entry("F31")}, b"1234"), "unknown dtype 'F31'"),
    "dtype of another type": (with_header({"a": entry(["F32"])}, b"1234"), "unknown dtype"),
    "negative shape": (with_header({"a": entry(shape=[-1])}, b"1234"), "not whole numbers"),
    "boolean shape": (with_header({"a": entry(shape=[True])}, b"1234"), "not whole numbers"),
    "shape that overflows": (with_header({"a": entry(shape=[2**63])}, b"1234"), "not whole numbers"),
    "three offsets": (with_header({"a": entry(offsets=[0, 2, 4])}, b"1234"), "not whole numbers"),
    "offsets against the shape": (with_header({"a": entry(offsets=[0, 3])}, b"123"), "needs 4 bytes but has 3"),
    "offsets backwards": (with_header({"a": entry(offsets=[8, 4])}, b"12345678"), "needs 4 bytes but has -4"),
    "overlap": (
        with_header({"a": entry(), "b": entry(offsets=[2, 6])}, b"123456"),
        "'b' starts at byte 2, but the one before ends at 4",
    ),
    "gap": (with_header({"a": entry(), "b": entry(offsets=[8, 12])}, b"x" * 12), "starts at byte 8"),
    "cut short": (WHOLE[:-7], "it is cut short"),
    "longer": (WHOLE + b"more", "longer than its header says"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_says_how(name: str, tmp_path: Path) -> None:
    data, expected = BROKEN[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(PlanError) as error:
        safetensors_header.read(path)
    assert expected in str(error.value)
    assert "is no valid safetensors file" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_is_found_or_harmless(data: st.DataObject) -> None:
    """Whatever bytes are changed in the header: either it still describes exactly this file, or a PlanError."""
    length = 8 + int.from_bytes(WHOLE[:8], "little")
    broken = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, length - 1))] = data.draw(st.integers(0, 255))
    size = data.draw(st.sampled_from([len(WHOLE), len(WHOLE) - 1, len(WHOLE) + 9]))
    try:
        count = safetensors_header.header_length(bytes(broken[:8]), size=size, name="x")
        header = safetensors_header.parse(bytes(broken[8 : 8 + count]), size=size, name="x")
    except PlanError:
        return
    assert 8 + count + sum(t.end - t.start for t in header.tensors.values()) == size
