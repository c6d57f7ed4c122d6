"""The header of a safetensors file, checked before anything in it is trusted. Standard library only.

Layout: 8 bytes little-endian length N, N bytes of JSON ``{name: {dtype, shape, data_offsets}}``, then the tensors
without gaps. Format: github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.schema.errors import PlanError

MAX_HEADER = 100_000_000  # bytes; the format's own limit
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor of the file; ``start`` and ``end`` count from the first byte after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Header:
    """A header that holds together."""

    tensors: Mapping[str, Tensor]
    size: int  # bytes of the whole file

    @property
    def elements(self) -> int:
        return sum(t.elements for t in self.tensors.values())


def read(path: Path) -> Header:
    """Read and check the header of ``path``; raises PlanError when the file is damaged."""
    with path.open("rb") as file:
        size = path.stat().st_size
        length = header_length(file.read(8), size=size, name=str(path))
        return parse(file.read(length), size=size, name=str(path))


def header_length(first: bytes, *, size: int, name: str) -> int:
    """Bytes of JSON that follow the first eight bytes of a file of ``size`` bytes."""
    if len(first) < 8:
        raise damaged(name, f"it has {size} bytes, fewer than the 8 of the header's length")
    length = int.from_bytes(first[:8], "little")
    if length > MAX_HEADER:
        raise damaged(name, f"its header claims {length} bytes, more than the format allows ({MAX_HEADER})")
    if 8 + length > size:
        raise damaged(name, f"its header claims {length} bytes, but the file has {size}")
    return length


def parse(text: bytes, *, size: int, name: str) -> Header:
    """Check the JSON ``text`` of the header of a file of ``size`` bytes; ``name`` is for messages."""
    try:
        data = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise damaged(name, f"its header is not valid JSON ({_short(error)})") from None
    if not isinstance(data, dict):
        raise damaged(name, "its header is not a JSON object")
    data.pop("__metadata__", None)
    tensors = {key: _tensor(key, value, name) for key, value in data.items()}
    _check_layout(tensors, held=size - 8 - len(text), name=name)
    return Header(tensors=tensors, size=size)


def damaged(name: str, what: str) -> PlanError:
    """The error for a file that is not what it says."""
    return PlanError(f"{name!r} is no valid safetensors file: {what}; download or save it again")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key[:80]!r} appears twice")
        found[key] = value
    return found


def _tensor(key: str, value: Any, name: str) -> Tensor:
    what = f"tensor {key[:80]!r}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise damaged(name, f"{what} lacks exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise damaged(name, f"{what} has the unknown dtype {dtype!r:.40}")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        raise damaged(name, f"{what} has a shape or offsets that are not whole numbers of 0 or more")
    tensor = Tensor(dtype=dtype, shape=tuple(shape), start=offsets[0], end=offsets[1])
    bits = tensor.elements * BITS[dtype]
    if bits % 8 or tensor.end - tensor.start != bits // 8:
        raise damaged(
            name,
            f"{what}, {dtype} of shape {shape!r:.80}, needs {bits / 8:g} bytes but has {tensor.end - tensor.start}",
        )
    return tensor


def _counts(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 64 and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _check_layout(tensors: Mapping[str, Tensor], *, held: int, name: str) -> None:
    end = 0
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != end:
            raise damaged(name, f"tensor {key[:80]!r} starts at byte {tensor.start}, but the one before ends at {end}")
        end = tensor.end
    if end != held:
        kind = "cut short" if held < end else "longer than its header says"
        raise damaged(name, f"it is {kind}: {held} bytes of tensors where {end} are named")


def _short(error: Exception) -> str:
    return str(error)[:120] or type(error).__name__
