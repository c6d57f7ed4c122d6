"""fp8: w = code * s, codes in e4m3 and s = max|w| / 448 for a row. 8 + 32/K bits a weight.

e4m3 has four bits of exponent and three of mantissa, 448 is its largest number: Micikevicius et al. 2022, arXiv
2209.05433. Small weights of a row keep their relative precision of 1/16, down to 2^-6 / 448 of its largest.

Parts: codes [N, K] in float8_e4m3fn; scales [N] in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from runner.kernels.formats._shared import divided, e4m3, in_pieces
from runner.kernels.launch import jit, tl

LARGEST = 448.0


def layout(rows: int, columns: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Dtype and shape of each part."""
    return {"codes": (torch.float8_e4m3fn, (rows, columns)), "scales": (torch.float32, (rows,))}


def quantise(weight_NK: Tensor) -> dict[str, Tensor]:
    """The nearest code of every weight."""
    return dict(zip(("codes", "scales"), in_pieces(_nearest, weight_NK), strict=True))


def reference(parts: Mapping[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """The weight [N, K] in `dtype`."""
    return parts["codes"].float().mul_(parts["scales"][:, None]).to(dtype)


def operands(parts: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Codes as bytes, scales, and codes again in the places of pointers that are not read."""
    codes = parts["codes"].view(torch.uint8)
    return codes, parts["scales"], codes, codes, codes


@jit
def decode(
    codes_ptr,
    scales_ptr,
    _c_ptr,
    _d_ptr,
    _e_ptr,
    row_N,
    inside_N,
    start,
    columns,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A tile of the weight, as the package says."""
    column = start + tl.arange(0, BLOCK_K)
    inside = inside_N[:, None] & (column < columns)[None, :]
    codes = tl.load(codes_ptr + row_N[:, None] * columns + column[None, :], mask=inside, other=0)
    scale = tl.load(scales_ptr + row_N, mask=inside_N, other=0.0)
    return e4m3(codes) * scale[:, None]


def _nearest(weight_NK: Tensor) -> tuple[Tensor, Tensor]:
    scales = weight_NK.abs().amax(1, keepdim=True) / LARGEST
    codes = divided(weight_NK, scales).clamp_(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    return codes, scales.squeeze(1)
