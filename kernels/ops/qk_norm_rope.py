"""RMSNorm of every head of q and k, then RoPE, in one pass: what Qwen3 and Gemma 3 do before attention.

z = x * r * (w + offset) with r = 1 / sqrt(mean(x^2) + eps) over a head (as in arXiv 2505.09388, Qwen3), and
y = z turned by the token's position (see `rope`). Backward: dz is dy turned back, then with n = x * r and
g = dz * (w + offset): dx = r * (g - n * mean(g * n)), dw = sum over tokens and heads of dz * n.
Shapes: T tokens, H heads of q, G heads of k, D features of a head, P positions of the tables, C <= D/2 pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runner.kernels.launch import PROGRAMS, divide_up, jit, launch, tile, tl, use_triton, warps, wide
from runner.kernels.parts.rotation import angles, dense, must_fit, partner_of


def qk_norm_rope(
    q_THD: Tensor,
    k_TGD: Tensor,
    q_weight_D: Tensor,
    k_weight_D: Tensor,
    cos_PC: Tensor,
    sin_PC: Tensor,
    positions_T: Tensor,
    *,
    eps: float = 1e-6,
    offset: float = 0.0,
    with_triton: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """q and k, each head normed and turned by row `positions_T[t]` of the tables; tables get no gradient.

    Raises ValueError where shapes do not belong together. Positions must lie within the tables.
    """
    must_fit(q_THD, k_TGD, cos_PC, sin_PC, positions_T)
    tensors = (q_THD, k_TGD, q_weight_D, k_weight_D, cos_PC, sin_PC, positions_T)
    if not use_triton(q_THD, with_triton):
        return reference(*tensors, eps=eps, offset=offset)
    y: tuple[Tensor, Tensor] = _QkNormRope.apply(*tensors, eps, offset)
    return y


def reference(
    q_THD: Tensor,
    k_TGD: Tensor,
    q_weight_D: Tensor,
    k_weight_D: Tensor,
    cos_PC: Tensor,
    sin_PC: Tensor,
    positions_T: Tensor,
    *,
    eps: float = 1e-6,
    offset: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The same in plain torch."""
    cos, sin = (wide(table)[positions_T][:, None] for table in (cos_PC, sin_PC))
    pairs = cos.shape[-1]

    def one(x: Tensor, weight_D: Tensor) -> Tensor:
        scale = torch.rsqrt(wide(x).square().mean(-1, keepdim=True) + eps)
        normed = wide(x) * scale * (wide(weight_D) + offset)
        first, second, rest = normed.split([pairs, pairs, x.shape[-1] - 2 * pairs], dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1).to(x.dtype)

    return one(q_THD, q_weight_D), one(k_TGD, k_weight_D)


@jit
def _forward_rows(
    x_ptr,
    w_ptr,
    y_ptr,
    r_ptr,
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
    eps,
    offset,
    first,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = first.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    partners = partner_of(columns, HALF)
    inside = (row[:, None] < rows) & (columns < features)[None, :]
    head_ptr = x_ptr + (row // heads * token_stride + row % heads * head_stride)[:, None]
    x = tl.load(head_ptr + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    x_partner = tl.load(head_ptr + partners[None, :], mask=inside, other=0.0).to(tl.float32)
    w = tl.load(w_ptr + columns, mask=columns < features, other=0.0).to(tl.float32) + offset
    w_partner = tl.load(w_ptr + partners, mask=columns < features, other=0.0).to(tl.float32) + offset
    r = 1.0 / tl.sqrt(tl.sum(x * x, 1) / features + eps)
    tl.store(r_ptr + row, r, mask=row < rows)
    position = tl.load(positions_ptr + row // heads, mask=row < rows, other=0).to(tl.int64)
    cos, sin = angles(cos_ptr, sin_ptr, position, cos_stride, sin_stride, columns, inside, HALF)
    y = r[:, None] * (x * w[None, :] * cos + x_partner * w_partner[None, :] * sin)
    tl.store(y_ptr + row[:, None] * features + columns[None, :], y.to(y_ptr.dtype.element_ty), mask=inside)


@jit
def _forward_kernel(
    q_ptr,
    k_ptr,
    q_w_ptr,
    k_w_ptr,
    q_out_ptr,
    k_out_ptr,
    q_r_ptr,
    k_r_ptr,
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
    eps,
    offset,
    q_programs,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    # fmt: off
    if program < q_programs:
        _forward_rows(q_ptr, q_w_ptr, q_out_ptr, q_r_ptr, cos_ptr, sin_ptr, positions_ptr, cos_stride, sin_stride,
                      q_rows, q_heads, q_token_stride, q_head_stride, features, eps, offset, program,
                      HALF, ROWS, BLOCK)
    else:
        _forward_rows(k_ptr, k_w_ptr, k_out_ptr, k_r_ptr, cos_ptr, sin_ptr, positions_ptr, cos_stride, sin_stride,
                      k_rows, k_heads, k_token_stride, k_head_stride, features, eps, offset, program - q_programs,
                      HALF, ROWS, BLOCK)
    # fmt: on


@jit
def _backward_rows(
    x_ptr,
    w_ptr,
    dy_ptr,
    r_ptr,
    dx_ptr,
    dw_ptr,
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
    offset,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    partners = partner_of(columns, HALF)
    w = tl.load(w_ptr + columns, mask=columns < features, other=0.0).to(tl.float32)[None, :] + offset
    dw = tl.zeros((BLOCK,), tl.float32)
    for first in range(program * ROWS, rows, tl.num_programs(0) * ROWS):
        row = first + tl.arange(0, ROWS).to(tl.int64)
        inside = (row[:, None] < rows) & (columns < features)[None, :]
        head_ptr = x_ptr + (row // heads * token_stride + row % heads * head_stride)[:, None]
        x = tl.load(head_ptr + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + row[:, None] * features + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        dy_partner = tl.load(dy_ptr + row[:, None] * features + partners[None, :], mask=inside, other=0.0)
        position = tl.load(positions_ptr + row // heads, mask=row < rows, other=0).to(tl.int64)
        cos, sin = angles(cos_ptr, sin_ptr, position, cos_stride, sin_stride, columns, inside, HALF)
        dz = dy * cos - dy_partner.to(tl.float32) * sin
        r = tl.load(r_ptr + row, mask=row < rows, other=0.0)[:, None]
        normed = x * r
        mean = tl.sum(dz * w * normed, 1) / features
        dx = r * (dz * w - normed * mean[:, None])
        tl.store(dx_ptr + row[:, None] * features + columns[None, :], dx.to(dx_ptr.dtype.element_ty), mask=inside)
        dw += tl.sum(dz * normed, 0)
    tl.store(dw_ptr + program * features + columns, dw, mask=columns < features)


@jit
def _backward_kernel(
    q_ptr,
    k_ptr,
    q_w_ptr,
    k_w_ptr,
    dq_out_ptr,
    dk_out_ptr,
    q_r_ptr,
    k_r_ptr,
    dq_ptr,
    dk_ptr,
    q_dw_ptr,
    k_dw_ptr,
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
    offset,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # fmt: off
    _backward_rows(q_ptr, q_w_ptr, dq_out_ptr, q_r_ptr, dq_ptr, q_dw_ptr, cos_ptr, sin_ptr, positions_ptr,
                   cos_stride, sin_stride, q_rows, q_heads, q_token_stride, q_head_stride, features, offset,
                   HALF, ROWS, BLOCK)
    _backward_rows(k_ptr, k_w_ptr, dk_out_ptr, k_r_ptr, dk_ptr, k_dw_ptr, cos_ptr, sin_ptr, positions_ptr,
                   cos_stride, sin_stride, k_rows, k_heads, k_token_stride, k_head_stride, features, offset,
                   HALF, ROWS, BLOCK)
    # fmt: on


def _sizes(q_THD: Tensor, k_TGD: Tensor) -> tuple[int, ...]:
    """Rows, heads and strides of both, and the features."""
    (tokens, q_heads, features), k_heads = q_THD.shape, k_TGD.shape[1]
    strides = (*q_THD.stride()[:2], *k_TGD.stride()[:2])
    return (tokens * q_heads, tokens * k_heads, q_heads, k_heads, *strides, features)


class _QkNormRope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *tensors, positions_T, eps, offset = arguments
        q_THD, k_TGD, q_weight_D, k_weight_D, cos_PC, sin_PC = (dense(x) for x in tensors)
        out = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q_THD, k_TGD)]
        scales = [torch.empty(x.shape[:2], dtype=torch.float32, device=x.device) for x in (q_THD, k_TGD)]
        high, block = tile(q_THD.shape[2])
        q_programs, k_programs = (divide_up(x.shape[0] * x.shape[1], high) for x in (q_THD, k_TGD))
        tables = (cos_PC, sin_PC, positions_T.contiguous())
        sizes = (cos_PC.stride(0), sin_PC.stride(0), *_sizes(q_THD, k_TGD), eps, offset, q_programs)
        options = {"HALF": cos_PC.shape[1], "ROWS": high, "BLOCK": block, "num_warps": warps(high * block)}
        inputs = (q_THD, k_TGD, q_weight_D, k_weight_D)
        launch(_forward_kernel, (q_programs + k_programs,), *inputs, *out, *scales, *tables, *sizes, **options)
        ctx.save_for_backward(*inputs, *scales, *tables)
        ctx.offset = offset
        return out[0], out[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dq_THD: Tensor, dk_TGD: Tensor) -> tuple[Tensor | None, ...]:
        q_THD, k_TGD, q_weight_D, k_weight_D, *rest = ctx.saved_tensors
        cos_PC, sin_PC = rest[2:4]
        high, block = tile(q_THD.shape[2])
        programs = min(max(divide_up(x.shape[0] * x.shape[1], high) for x in (q_THD, k_TGD)), PROGRAMS)
        into = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q_THD, k_TGD)]
        sums = [torch.empty(programs, q_THD.shape[2], dtype=torch.float32, device=q_THD.device) for _ in range(2)]
        tensors = (q_THD, k_TGD, q_weight_D, k_weight_D, dq_THD.contiguous(), dk_TGD.contiguous(), *rest[:2])
        sizes = (cos_PC.stride(0), sin_PC.stride(0), *_sizes(q_THD, k_TGD), ctx.offset)
        options = {"HALF": cos_PC.shape[1], "ROWS": high, "BLOCK": block, "num_warps": warps(high * block)}
        launch(_backward_kernel, (programs,), *tensors, *into, *sums, *rest[2:], *sizes, **options)
        weights = (sum_PD.sum(0).to(w.dtype) for sum_PD, w in zip(sums, (q_weight_D, k_weight_D), strict=True))
        return *into, *weights, None, None, None, None, None
