"""LayerNorm: y = n * w + b with n = (x - mean) * r and r = 1 / sqrt(var + eps). Ba et al. 2016, arXiv 1607.06450.

With g = dy * w, all means over the row: dx = r * (g - mean(g) - n * mean(g * n)), dw = sum over rows of dy * n,
db = sum over rows of dy. The variance is of the differences from the mean, read once more: no large squares cancel.
Shapes: R rows, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runner.kernels.launch import PROGRAMS, as_rows, divide_up, jit, launch, tile, tl, use_triton, warps, wide


def layer_norm(
    x: Tensor, weight_D: Tensor, bias_D: Tensor | None = None, *, eps: float = 1e-5, with_triton: bool | None = None
) -> Tensor:
    """The rows of `x` [..., D] with mean 0 and variance 1, times weight, plus bias; in x's dtype."""
    if not use_triton(x, with_triton):
        return reference(x, weight_D, bias_D, eps=eps)
    y: Tensor = _LayerNorm.apply(x, weight_D, bias_D, eps)
    return y


def reference(x: Tensor, weight_D: Tensor, bias_D: Tensor | None = None, *, eps: float = 1e-5) -> Tensor:
    """The same in plain torch."""
    centred = wide(x) - wide(x).mean(-1, keepdim=True)
    y = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps) * wide(weight_D)
    return (y if bias_D is None else y + wide(bias_D)).to(x.dtype)


@jit
def _forward_kernel(
    x_ptr,
    w_ptr,
    b_ptr,
    y_ptr,
    mean_ptr,
    r_ptr,
    x_stride,
    rows,
    features,
    eps,
    BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    sums = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, features, BLOCK):
        inside = (row[:, None] < rows) & (start + columns < features)[None, :]
        sums += tl.load(x_ptr + row[:, None] * x_stride + (start + columns)[None, :], mask=inside, other=0.0).to(
            tl.float32
        )
    mean = tl.sum(sums, 1) / features
    squares = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, features, BLOCK):
        inside = (row[:, None] < rows) & (start + columns < features)[None, :]
        x = tl.load(x_ptr + row[:, None] * x_stride + (start + columns)[None, :], mask=inside, other=0.0).to(tl.float32)
        centred = tl.where(inside, x - mean[:, None], 0.0)
        squares += centred * centred
    r = 1.0 / tl.sqrt(tl.sum(squares, 1) / features + eps)
    tl.store(mean_ptr + row, mean, mask=row < rows)
    tl.store(r_ptr + row, r, mask=row < rows)
    for start in range(0, features, BLOCK):
        inside = (row[:, None] < rows) & (start + columns < features)[None, :]
        x = tl.load(x_ptr + row[:, None] * x_stride + (start + columns)[None, :], mask=inside, other=0.0).to(tl.float32)
        w = tl.load(w_ptr + start + columns, mask=start + columns < features, other=0.0).to(tl.float32)
        y = (x - mean[:, None]) * r[:, None] * w[None, :]
        if BIAS:
            y += tl.load(b_ptr + start + columns, mask=start + columns < features, other=0.0).to(tl.float32)[None, :]
        tl.store(
            y_ptr + row[:, None] * features + (start + columns)[None, :], y.to(y_ptr.dtype.element_ty), mask=inside
        )


@jit
def _backward_kernel(
    x_ptr,
    w_ptr,
    dy_ptr,
    mean_ptr,
    r_ptr,
    dx_ptr,
    dw_ptr,
    db_ptr,
    x_stride,
    rows,
    features,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    dw = tl.zeros((BLOCK,), tl.float32)
    db = tl.zeros((BLOCK,), tl.float32)
    for first in range(program * ROWS, rows, tl.num_programs(0) * ROWS):
        row = first + tl.arange(0, ROWS).to(tl.int64)
        mean = tl.load(mean_ptr + row, mask=row < rows, other=0.0)[:, None]
        r = tl.load(r_ptr + row, mask=row < rows, other=0.0)[:, None]
        sums = tl.zeros((ROWS, BLOCK), tl.float32)
        products = tl.zeros((ROWS, BLOCK), tl.float32)
        for start in range(0, features, BLOCK):
            inside = (row[:, None] < rows) & (start + columns < features)[None, :]
            at = (start + columns)[None, :]
            x = tl.load(x_ptr + row[:, None] * x_stride + at, mask=inside, other=0.0).to(tl.float32)
            dy = tl.load(dy_ptr + row[:, None] * features + at, mask=inside, other=0.0).to(tl.float32)
            w = tl.load(w_ptr + start + columns, mask=start + columns < features, other=0.0).to(tl.float32)
            sums += dy * w[None, :]
            products += dy * w[None, :] * (x - mean) * r
        mean_g = (tl.sum(sums, 1) / features)[:, None]
        mean_gn = (tl.sum(products, 1) / features)[:, None]
        for start in range(0, features, BLOCK):
            inside = (row[:, None] < rows) & (start + columns < features)[None, :]
            at = (start + columns)[None, :]
            x = tl.load(x_ptr + row[:, None] * x_stride + at, mask=inside, other=0.0).to(tl.float32)
            dy = tl.load(dy_ptr + row[:, None] * features + at, mask=inside, other=0.0).to(tl.float32)
            w = tl.load(w_ptr + start + columns, mask=start + columns < features, other=0.0).to(tl.float32)
            normed = (x - mean) * r
            dx = r * (dy * w[None, :] - mean_g - normed * mean_gn)
            tl.store(dx_ptr + row[:, None] * features + at, dx.to(dx_ptr.dtype.element_ty), mask=inside)
            if WIDE:  # too wide for registers: the sums lie in this program's own rows, which start as zeros
                place, held = program * features + start + columns, start + columns < features
                dw_here = tl.load(dw_ptr + place, mask=held, other=0.0) + tl.sum(dy * normed, 0)
                db_here = tl.load(db_ptr + place, mask=held, other=0.0) + tl.sum(dy, 0)
                tl.store(dw_ptr + place, dw_here, mask=held)
                tl.store(db_ptr + place, db_here, mask=held)
                tl.debug_barrier()  # the next rows may read with other threads than have written
            else:
                dw += tl.sum(dy * normed, 0)
                db += tl.sum(dy, 0)
    if not WIDE:
        tl.store(dw_ptr + program * features + columns, dw, mask=columns < features)
        tl.store(db_ptr + program * features + columns, db, mask=columns < features)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, bias_D: Tensor | None, eps: float) -> Tensor:
        x_RD, weight_D = as_rows(x), weight_D.contiguous()
        rows, features = x_RD.shape
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        mean_R, scale_R = (torch.empty(rows, dtype=torch.float32, device=x.device) for _ in range(2))
        high, block = tile(features)
        sizes = (x_RD.stride(0), rows, features, eps)
        options = {"BIAS": bias_D is not None, "ROWS": high, "BLOCK": block, "num_warps": warps(high * block)}
        bias = weight_D if bias_D is None else bias_D.contiguous()
        launch(_forward_kernel, (divide_up(rows, high),), x_RD, weight_D, bias, y, mean_R, scale_R, *sizes, **options)
        ctx.save_for_backward(x_RD, weight_D, mean_R, scale_R)
        ctx.bias_dtype = None if bias_D is None else bias_D.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x_RD, weight_D, mean_R, scale_R = ctx.saved_tensors
        rows, features = x_RD.shape
        dx = torch.empty(dy.shape, dtype=x_RD.dtype, device=dy.device)
        high, block = tile(features)
        programs = min(divide_up(rows, high), PROGRAMS)
        fresh = torch.zeros if features > block else torch.empty
        dw_PD, db_PD = (fresh(programs, features, dtype=torch.float32, device=dy.device) for _ in range(2))
        options = {"ROWS": high, "BLOCK": block, "WIDE": features > block, "num_warps": warps(high * block)}
        tensors = (x_RD, weight_D, dy.contiguous(), mean_R, scale_R, dx, dw_PD, db_PD)
        launch(_backward_kernel, (programs,), *tensors, x_RD.stride(0), rows, features, **options)
        db = None if ctx.bias_dtype is None else db_PD.sum(0).to(ctx.bias_dtype)
        return dx, dw_PD.sum(0).to(weight_D.dtype), db, None
