"""Products with a frozen weight that end with a low-rank term: y = x W^T + scale * low factor^T + bias, in one launch.

W is plain or quantised. Tiles of a quantised one are decoded in registers as they are met
(`runner.kernels.formats`), so that W in full precision exists nowhere. `transposed` is the product of the backward
pass, x W, which sums over W's rows instead of its columns. Sums are fp32, tiles go through `tl.dot` in x's dtype, and
no two programs share an output: the same shapes give the same bits. Shapes: W is [N, K]; x [M, C] and y [M, O], where
C, O are K, N, or N, K if transposed; low [M, R], factor [R, O].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from runner.kernels.formats import load
from runner.kernels.launch import divide_up, interpreted, jit, launch, power_of_two, tl
from runner.kernels.quantised import QuantisedWeight

SMALL = 32  # rows up to which time goes into reading W: narrow tiles, so that every core reads some of it
GROUP = 8  # tiles of rows that meet the same tile of W one after another, while it is in the cache


def product(
    x_MC: Tensor,
    weight: Tensor | QuantisedWeight,
    *,
    transposed: bool = False,
    low_MR: Tensor | None = None,
    factor_RO: Tensor | None = None,
    scale: float = 1.0,
    bias_O: Tensor | None = None,
) -> Tensor:
    """x W^T (`transposed`: x W) with the low-rank term and the bias where they are given, in x's dtype; by Triton.

    Elements of a row of `x` must lie side by side. Raises ValueError for sizes that do not fit.
    """
    outs, inner = reversed(weight.shape) if transposed else weight.shape
    if x_MC.shape[1] != inner:
        raise ValueError(f"x has {x_MC.shape[1]} features, and the weight {tuple(weight.shape)} takes {inner}.")
    rows = x_MC.shape[0]
    y_MO = torch.empty(rows, outs, dtype=x_MC.dtype, device=x_MC.device)
    if y_MO.numel() == 0:
        return y_MO
    decode, operands = _operands(weight)
    low = low_MR if low_MR is not None else x_MC  # a pointer that nothing follows, like those below
    factor = factor_RO if factor_RO is not None else x_MC
    rank = low.shape[1] if low_MR is not None else 0
    blocks = _blocks(rows, outs, inner, rank, x_MC.element_size())
    programs = divide_up(rows, blocks["BLOCK_M"]) * divide_up(outs, blocks["BLOCK_O"])
    tensors = (x_MC, *operands, low, factor, x_MC if bias_O is None else bias_O.contiguous(), y_MO)
    sizes = (rows, outs, inner, weight.shape[1], rank, x_MC.stride(0), *low.stride(), *factor.stride(), scale)
    flags = {"TRANSPOSED": transposed, "LOW": rank > 0, "BIAS": bias_O is not None, "UPCAST": interpreted()}
    launch(_product_kernel, (programs,), *tensors, *sizes, DECODE=decode, GROUP=GROUP, **flags, **blocks)
    return y_MO


def _operands(weight: Tensor | QuantisedWeight) -> tuple[Any, tuple[Tensor, ...]]:
    if isinstance(weight, Tensor):
        return _plain, (weight.contiguous(),) * 5
    return load(weight.format).decode, weight.operands()


def _blocks(rows: int, outs: int, inner: int, rank: int, size: int) -> dict[str, int]:
    """Tiles for so many rows; fp32 ones (`size` 4) are half as large.

    For compute capability 9.0 ptxas gives the largest 96 KB and, for nf4, 186 registers a thread, and spills none.
    """
    high = min(max(power_of_two(rows), 16), 128 if size == 2 else 64)
    broad = (32 if outs < 8192 else 64) if rows <= SMALL else (128 if size == 2 else 64)
    deep = 128 if rows <= SMALL else (64 if size == 2 else 32)
    return {
        "BLOCK_M": high,
        "BLOCK_O": min(broad, max(power_of_two(outs), 16)),
        "BLOCK_C": min(deep, max(power_of_two(inner), 16)),
        "BLOCK_R": min(max(power_of_two(rank), 16), 64),
        "num_warps": 8 if high * broad >= 128 * 128 else 4,
        "num_stages": 3,
    }


@jit
def _plain(
    w_ptr,
    _b_ptr,
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
    """A tile of a weight that is not quantised, as `runner.kernels.formats` wants it but in its own dtype."""
    column = start + tl.arange(0, BLOCK_K)
    inside = inside_N[:, None] & (column < columns)[None, :]
    return tl.load(w_ptr + row_N[:, None] * columns + column[None, :], mask=inside, other=0.0)


@jit
def _product_kernel(
    x_ptr,
    a_ptr,
    b_ptr,
    c_ptr,
    d_ptr,
    e_ptr,
    low_ptr,
    factor_ptr,
    bias_ptr,
    y_ptr,
    rows,
    outs,
    inner,
    columns,
    rank,
    x_stride,
    low_row,
    low_rank,
    factor_rank,
    factor_out,
    scale,
    DECODE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    LOW: tl.constexpr,
    BIAS: tl.constexpr,
    UPCAST: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    across = (outs + BLOCK_O - 1) // BLOCK_O
    first = tl.program_id(0) // (GROUP * across) * GROUP
    together = tl.minimum((rows + BLOCK_M - 1) // BLOCK_M - first, GROUP)
    within = tl.program_id(0) % (GROUP * across)
    row = (first + within % together).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    out_start = within // together * BLOCK_O
    out = out_start.to(tl.int64) + tl.arange(0, BLOCK_O)
    dtype = tl.float32 if UPCAST else x_ptr.dtype.element_ty
    total = tl.zeros((BLOCK_M, BLOCK_O), tl.float32)
    for start in range(0, inner, BLOCK_C):
        at = start + tl.arange(0, BLOCK_C)
        inside = (row < rows)[:, None] & (at < inner)[None, :]
        x = tl.load(x_ptr + row[:, None] * x_stride + at[None, :], mask=inside, other=0.0)
        if TRANSPOSED:
            w = DECODE(
                a_ptr,
                b_ptr,
                c_ptr,
                d_ptr,
                e_ptr,
                at.to(tl.int64),
                at < inner,
                out_start,
                columns,
                BLOCK_C,
                BLOCK_O,
            )
        else:
            w = tl.trans(DECODE(a_ptr, b_ptr, c_ptr, d_ptr, e_ptr, out, out < outs, start, columns, BLOCK_O, BLOCK_C))
        total = tl.dot(x.to(dtype), w.to(x_ptr.dtype.element_ty).to(dtype), total, input_precision="ieee")
    if LOW:
        term = tl.zeros((BLOCK_M, BLOCK_O), tl.float32)
        for start in range(0, rank, BLOCK_R):
            at = start + tl.arange(0, BLOCK_R)
            inside = (row < rows)[:, None] & (at < rank)[None, :]
            low = tl.load(low_ptr + row[:, None] * low_row + at[None, :] * low_rank, mask=inside, other=0.0)
            inside = (at < rank)[:, None] & (out < outs)[None, :]
            places = factor_ptr + at[:, None] * factor_rank + out[None, :] * factor_out
            factor = tl.load(places, mask=inside, other=0.0)
            low, factor = low.to(x_ptr.dtype.element_ty).to(dtype), factor.to(x_ptr.dtype.element_ty).to(dtype)
            term = tl.dot(low, factor, term, input_precision="ieee")
        total += scale * term
    if BIAS:
        total += tl.load(bias_ptr + out, mask=out < outs, other=0.0).to(tl.float32)[None, :]
    places = y_ptr + row[:, None] * outs + out[None, :]
    tl.store(places, total.to(y_ptr.dtype.element_ty), mask=(row < rows)[:, None] & (out < outs)[None, :])
