"""Formats of quantised weights, one a file: the listing of this folder is the registry.

A weight [N, K] has N outputs and K inputs, as that of a linear layer. Every format has

- ``layout(rows, columns)``: dtype and shape of each part it is stored as, from which all sizes follow;
- ``quantise(weight_NK)``: the parts, from fp32, bf16 or fp16;
- ``reference(parts, shape, dtype)``: the weight again, in plain torch; values are computed in fp32, then rounded;
- ``operands(parts)``: the five tensors whose pointers ``decode`` takes first;
- ``decode(a_ptr, b_ptr, c_ptr, d_ptr, e_ptr, row_N, inside_N, start, columns, BLOCK_N, BLOCK_K)``: for use in a kernel,
  the tile [BLOCK_N, BLOCK_K] of the weight in fp32. `row_N` are rows of the weight as int64, `inside_N` says which of
  them to read, `start` is the first column, a multiple of BLOCK_K, which is a power of two of at least 16, and
  `columns` is K. Outside of the weight the tile is 0. A kernel takes it as an argument ``DECODE: tl.constexpr``.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


class Format(Protocol):
    """What a module of this folder offers."""

    decode: Any

    @staticmethod
    def layout(rows: int, columns: int) -> Layout: ...
    @staticmethod
    def quantise(weight_NK: Tensor) -> dict[str, Tensor]: ...
    @staticmethod
    def reference(parts: Mapping[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor: ...
    @staticmethod
    def operands(parts: Mapping[str, Tensor]) -> tuple[Tensor, ...]: ...


def names() -> list[str]:
    """The formats there are: fp8, fp8_block, int4, int8, nf4."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


@functools.cache  # it is asked for in every forward pass
def load(name: str) -> Format:
    """The format of that name; raises ValueError where there is none."""
    if name not in names():
        raise ValueError(f"Unknown format {name!r} of quantised weights. Formats: {', '.join(names())}.")
    return cast(Format, importlib.import_module(f"{__name__}.{name}"))
