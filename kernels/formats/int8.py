"""int8: w = code * s with s = max|w| / 127 for a row, symmetric. 8 + 32/K bits a weight.

One scale an output, so that a product may be scaled after the sum. Dettmers et al. 2022, arXiv 2208.07339.

Parts: codes [N, K] in int8; scales [N] in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from runner.kernels.formats._shared import divided, in_pieces
from runner.kernels.launch import jit, tl


def layout(rows: int, columns: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Dtype and shape of each part."""
    return {"codes": (torch.int8, (rows, columns)), "scales": (torch.float32, (rows,))}


def quantise(weight_NK: Tensor) -> dict[str, Tensor]:
    """The nearest code of every weight."""
    return dict(zip(("codes", "scales"), in_pieces(_nearest, weight_NK), strict=True))


def reference(parts: Mapping[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """The weight [N, K] in `dtype`."""
    return parts["codes"].float().mul_(parts["scales"][:, None]).to(dtype)


def operands(parts: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Codes, scales, and codes again in the places of pointers that are not read."""
    codes = parts["codes"]
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
    return codes.to(tl.float32) * scale[:, None]


def _nearest(weight_NK: Tensor) -> tuple[Tensor, Tensor]:
    scales = weight_NK.abs().amax(1, keepdim=True) / 127
    return divided(weight_NK, scales).round_().clamp_(-127, 127).to(torch.int8), scales.squeeze(1)
