"""RMSNorm: y = x * r * (w + offset) with r = 1 / sqrt(mean(x^2) + eps). Zhang and Sennrich 2019, arXiv 1910.07467.

Llama's norm has offset 0, Gemma's has offset 1. With n = x * r and g = dy * (w + offset), both per row:
dx = r * (g - n * mean(g * n)), and dw = sum over rows of dy * n. Shapes: R rows, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runner.kernels.launch import PROGRAMS, as_rows, divide_up, jit, launch, tile, tl, use_triton, warps, wide


def rms_norm(
    x: Tensor, weight_D: Tensor, *, eps: float = 1e-6, offset: float = 0.0, with_triton: bool | None = None
) -> Tensor:
    """The rows of `x` [..., D] divided by their root mean square, times weight + offset; in x's dtype."""
    if not use_triton(x, with_triton):
        return reference(x, weight_D, eps=eps, offset=offset)
    y: Tensor = _RmsNorm.apply(x, weight_D, eps, offset)
    return y


def reference(x: Tensor, weight_D: Tensor, *, eps: float = 1e-6, offset: float = 0.0) -> Tensor:
    """The same in plain torch."""
    scale = torch.rsqrt(wide(x).square().mean(-1, keepdim=True) + eps)
    return (wide(x) * scale * (wide(weight_D) + offset)).to(x.dtype)


@jit
def _forward_kernel(
    x_ptr, w_ptr, y_ptr, r_ptr, x_stride, rows, features, eps, offset, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    squares = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, features, BLOCK):
        inside = (row[:, None] < rows) & (start + columns < features)[None, :]
        x = tl.load(x_ptr + row[:, None] * x_stride + (start + columns)[None, :], mask=inside, other=0.0).to(tl.float32)
        squares += x * x
    r = 1.0 / tl.sqrt(tl.sum(squares, 1) / features + eps)
    tl.store(r_ptr + row, r, mask=row < rows)
    # the second reading of a row that fits a block comes from the cache
    for start in range(0, features, BLOCK):
        inside = (row[:, None] < rows) & (start + columns < features)[None, :]
        x = tl.load(x_ptr + row[:, None] * x_stride + (start + columns)[None, :], mask=inside, other=0.0).to(tl.float32)
        w = tl.load(w_ptr + start + columns, mask=start + columns < features, other=0.0).to(tl.float32) + offset
        y = x * r[:, None] * w[None, :]
        tl.store(
            y_ptr + row[:, None] * features + (start + columns)[None, :], y.to(y_ptr.dtype.element_ty), mask=inside
        )


@jit
def _backward_kernel(
    x_ptr,
    w_ptr,
    dy_ptr,
    r_ptr,
    dx_ptr,
    dw_ptr,
    x_stride,
    rows,
    features,
    offset,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    dw = tl.zeros((BLOCK,), tl.float32)
    for first in range(program * ROWS, rows, tl.num_programs(0) * ROWS):
        row = first + tl.arange(0, ROWS).to(tl.int64)
        r = tl.load(r_ptr + row, mask=row < rows, other=0.0)
        products = tl.zeros((ROWS, BLOCK), tl.float32)
        for start in range(0, features, BLOCK):
            inside = (row[:, None] < rows) & (start + columns < features)[None, :]
            at = (start + columns)[None, :]
            x = tl.load(x_ptr + row[:, None] * x_stride + at, mask=inside, other=0.0).to(tl.float32)
            dy = tl.load(dy_ptr + row[:, None] * features + at, mask=inside, other=0.0).to(tl.float32)
            w = tl.load(w_ptr + start + columns, mask=start + columns < features, other=0.0).to(tl.float32) + offset
            products += dy * w[None, :] * x * r[:, None]
        mean = tl.sum(products, 1) / features
        for start in range(0, features, BLOCK):
            inside = (row[:, None] < rows) & (start + columns < features)[None, :]
            at = (start + columns)[None, :]
            x = tl.load(x_ptr + row[:, None] * x_stride + at, mask=inside, other=0.0).to(tl.float32)
            dy = tl.load(dy_ptr + row[:, None] * features + at, mask=inside, other=0.0).to(tl.float32)
            w = tl.load(w_ptr + start + columns, mask=start + columns < features, other=0.0).to(tl.float32) + offset
            normed = x * r[:, None]
            dx = r[:, None] * (dy * w[None, :] - normed * mean[:, None])
            tl.store(dx_ptr + row[:, None] * features + at, dx.to(dx_ptr.dtype.element_ty), mask=inside)
            if WIDE:  # too wide for registers: the sum lies in this program's own row of dw, which starts as zeros
                place = dw_ptr + program * features + start + columns
                summed = tl.load(place, mask=start + columns < features, other=0.0) + tl.sum(dy * normed, 0)
                tl.store(place, summed, mask=start + columns < features)
                tl.debug_barrier()  # the next rows may read with other threads than have written
            else:
                dw += tl.sum(dy * normed, 0)
    if not WIDE:
        tl.store(dw_ptr + program * features + columns, dw, mask=columns < features)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float, offset: float) -> Tensor:
        x_RD, weight_D = as_rows(x), weight_D.contiguous()
        rows, features = x_RD.shape
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        scale_R = torch.empty(rows, dtype=torch.float32, device=x.device)
        high, block = tile(features)
        sizes = (x_RD.stride(0), rows, features, eps, offset)
        options = {"ROWS": high, "BLOCK": block, "num_warps": warps(high * block)}
        launch(_forward_kernel, (divide_up(rows, high),), x_RD, weight_D, y, scale_R, *sizes, **options)
        ctx.save_for_backward(x_RD, weight_D, scale_R)
        ctx.offset = offset
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x_RD, weight_D, scale_R = ctx.saved_tensors
        rows, features = x_RD.shape
        dx = torch.empty(dy.shape, dtype=x_RD.dtype, device=dy.device)
        high, block = tile(features)
        programs = min(divide_up(rows, high), PROGRAMS)
        fresh = torch.zeros if features > block else torch.empty
        dw_PD = fresh(programs, features, dtype=torch.float32, device=dy.device)
        sizes = (x_RD.stride(0), rows, features, ctx.offset)
        options = {"ROWS": high, "BLOCK": block, "WIDE": features > block, "num_warps": warps(high * block)}
        tensors = (x_RD, weight_D, dy.contiguous(), scale_R, dx, dw_PD)
        launch(_backward_kernel, (programs,), *tensors, *sizes, **options)
        return dx, dw_PD.sum(0).to(weight_D.dtype), None, None
