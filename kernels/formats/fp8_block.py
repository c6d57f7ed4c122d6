"""fp8_block: w = code * s, codes in e4m3 and s = max|w| / 448 for 128 x 128 weights. 8 + 32/16384 bits a weight.

DeepSeek-AI 2024 (DeepSeek-V3, arXiv 2412.19437, section 3.3.2); e4m3: Micikevicius et al. 2022, arXiv 2209.05433. What
its checkpoints call `weight_scale_inv` is s. The last blocks of rows and of columns may be smaller.

Parts: codes [N, K] in float8_e4m3fn; scales [N / 128, K / 128] in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from runner.kernels.formats._shared import divided, e4m3, in_pieces, spread
from runner.kernels.launch import divide_up, jit, tl

LARGEST, BLOCK = 448.0, 128


def layout(rows: int, columns: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Dtype and shape of each part."""
    blocks = (divide_up(rows, BLOCK), divide_up(columns, BLOCK))
    return {"codes": (torch.float8_e4m3fn, (rows, columns)), "scales": (torch.float32, blocks)}


def quantise(weight_NK: Tensor) -> dict[str, Tensor]:
    """The nearest code of every weight."""
    return dict(zip(("codes", "scales"), in_pieces(_nearest, weight_NK), strict=True))


def reference(parts: Mapping[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """The weight [N, K] in `dtype`."""
    return parts["codes"].float().mul_(_wide(parts["scales"], shape)).to(dtype)


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
    GROUPS: tl.constexpr = BLOCK_K // 128 if BLOCK_K > 128 else 1
    column = start + tl.arange(0, BLOCK_K)
    inside = inside_N[:, None] & (column < columns)[None, :]
    codes = tl.load(codes_ptr + row_N[:, None] * columns + column[None, :], mask=inside, other=0)
    blocks = (columns + 127) // 128
    block = start // 128 + tl.arange(0, GROUPS)
    place = (row_N // 128)[:, None] * blocks + block[None, :]
    scale = tl.load(scales_ptr + place, mask=inside_N[:, None] & (block < blocks)[None, :], other=0.0)
    return e4m3(codes) * spread(scale, BLOCK_N, BLOCK_K, GROUPS)


def _nearest(weight_NK: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = weight_NK.shape
    below, beside = -rows % BLOCK, -columns % BLOCK
    blocks = (
        torch.nn.functional.pad(weight_NK, (0, beside, 0, below)).unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK))
    )
    scales = blocks.abs().amax((1, 3)) / LARGEST
    codes = divided(weight_NK, _wide(scales, (rows, columns))).clamp_(-LARGEST, LARGEST)
    return codes.to(torch.float8_e4m3fn), scales


def _wide(scales: Tensor, shape: tuple[int, int]) -> Tensor:
    """The scale of every weight [N, K]."""
    rows, columns = shape
    return scales.repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)[:, :columns]
