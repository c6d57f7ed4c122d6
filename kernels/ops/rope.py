"""RoPE: every pair of features turns by an angle that grows with the position. Su et al. 2021, arXiv 2104.09864.

Pairs are (c, c + C), as transformers' rotate_half has them: y[c] = x[c] cos - x[c + C] sin and
y[c + C] = x[c + C] cos + x[c] sin; features from 2C on stay (partial rotary). The gradient turns back.
Documents may lie packed one after the other: a token takes the angle of its own position, wherever it lies.
Shapes: T tokens, H heads of q, G heads of k, D features of a head, P positions of the tables, C <= D/2 pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runner.kernels.launch import divide_up, jit, launch, tile, tl, use_triton, warps, wide
from runner.kernels.parts.rotation import angles, dense, must_fit, partner_of


def rope(
    q_THD: Tensor,
    k_TGD: Tensor,
    cos_PC: Tensor,
    sin_PC: Tensor,
    positions_T: Tensor,
    *,
    with_triton: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """q and k, turned by row `positions_T[t]` of the tables for token t; tables get no gradient.

    Raises ValueError where shapes do not belong together. Positions must lie within the tables.
    """
    must_fit(q_THD, k_TGD, cos_PC, sin_PC, positions_T)
    if not use_triton(q_THD, with_triton):
        return reference(q_THD, k_TGD, cos_PC, sin_PC, positions_T)
    turned: tuple[Tensor, Tensor] = _Rope.apply(q_THD, k_TGD, cos_PC, sin_PC, positions_T)
    return turned


def reference(
    q_THD: Tensor, k_TGD: Tensor, cos_PC: Tensor, sin_PC: Tensor, positions_T: Tensor
) -> tuple[Tensor, Tensor]:
    """The same in plain torch."""
    cos, sin = (wide(table)[positions_T][:, None] for table in (cos_PC, sin_PC))
    pairs = cos.shape[-1]

    def turned(x: Tensor) -> Tensor:
        first, second, rest = wide(x).split([pairs, pairs, x.shape[-1] - 2 * pairs], dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1).to(x.dtype)

    return turned(q_THD), turned(k_TGD)


@jit
def _turn_rows(
    x_ptr,
    y_ptr,
    cos_ptr,
    sin_ptr,
    positions_ptr,
    cos_stride,
    sin_stride,
    rows,
    heads,
    token_stride,
    head_stride,
    features,
    first,
    SIGN: tl.constexpr,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = first.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    inside = (row[:, None] < rows) & (columns < features)[None, :]
    position = tl.load(positions_ptr + row // heads, mask=row < rows, other=0).to(tl.int64)
    cos, sin = angles(cos_ptr, sin_ptr, position, cos_stride, sin_stride, columns, inside, HALF)
    head_ptr = x_ptr + (row // heads * token_stride + row % heads * head_stride)[:, None]
    x = tl.load(head_ptr + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    partner = tl.load(head_ptr + partner_of(columns, HALF)[None, :], mask=inside, other=0.0).to(tl.float32)
    y = x * cos + partner * sin * SIGN
    tl.store(y_ptr + row[:, None] * features + columns[None, :], y.to(y_ptr.dtype.element_ty), mask=inside)


@jit
def _kernel(
    q_ptr,
    k_ptr,
    q_out_ptr,
    k_out_ptr,
    cos_ptr,
    sin_ptr,
    positions_ptr,
    cos_stride,
    sin_stride,
    q_rows,
    k_rows,
    q_heads,
    k_heads,
    q_token_stride,
    q_head_stride,
    k_token_stride,
    k_head_stride,
    features,
    q_programs,
    SIGN: tl.constexpr,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    # fmt: off
    if program < q_programs:
        _turn_rows(q_ptr, q_out_ptr, cos_ptr, sin_ptr, positions_ptr, cos_stride, sin_stride, q_rows, q_heads,
                   q_token_stride, q_head_stride, features, program, SIGN, HALF, ROWS, BLOCK)
    else:
        _turn_rows(k_ptr, k_out_ptr, cos_ptr, sin_ptr, positions_ptr, cos_stride, sin_stride, k_rows, k_heads,
                   k_token_stride, k_head_stride, features, program - q_programs, SIGN, HALF, ROWS, BLOCK)
    # fmt: on


def _turn(
    q_THD: Tensor, k_TGD: Tensor, cos_PC: Tensor, sin_PC: Tensor, positions_T: Tensor, sign: float
) -> tuple[Tensor, Tensor]:
    q_THD, k_TGD = dense(q_THD), dense(k_TGD)
    (tokens, q_heads, features), k_heads = q_THD.shape, k_TGD.shape[1]
    out = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q_THD, k_TGD)]
    high, block = tile(features)
    q_programs, k_programs = (divide_up(tokens * heads, high) for heads in (q_heads, k_heads))
    strides = (*q_THD.stride()[:2], *k_TGD.stride()[:2])
    tables = (cos_PC, sin_PC, positions_T, cos_PC.stride(0), sin_PC.stride(0))
    sizes = (tokens * q_heads, tokens * k_heads, q_heads, k_heads, *strides, features, q_programs)
    options = {"SIGN": sign, "HALF": cos_PC.shape[1], "ROWS": high, "BLOCK": block, "num_warps": warps(high * block)}
    launch(_kernel, (q_programs + k_programs,), q_THD, k_TGD, *out, *tables, *sizes, **options)
    return out[0], out[1]


class _Rope(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_THD: Tensor, k_TGD: Tensor, cos_PC: Tensor, sin_PC: Tensor, positions_T: Tensor
    ) -> tuple[Tensor, Tensor]:
        tables = (dense(cos_PC), dense(sin_PC), positions_T.contiguous())
        ctx.save_for_backward(*tables)
        return _turn(q_THD, k_TGD, *tables, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dq_THD: Tensor, dk_TGD: Tensor) -> tuple[Tensor | None, ...]:
        cos_PC, sin_PC, positions_T = ctx.saved_tensors
        return *_turn(dq_THD, dk_TGD, cos_PC, sin_PC, positions_T, -1.0), None, None, None
