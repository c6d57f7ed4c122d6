"""What a token's experts say, together: y[r] = sum over j of w[r, j] * x[place of (r, j)], x being sorted by expert.

dx[s] = w[r, j] * dy[r] and dw[r, j] = dy[r] . x[s] for the (r, j) whose place is s. Shapes: R tokens, J experts each,
S = R * J rows, H features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runner.kernels.launch import as_rows, jit, launch, power_of_two, tl, use_triton, warps, wide
from runner.kernels.parts.expert_order import ExpertOrder, gathered


def combine_experts(x_SH: Tensor, weights_RJ: Tensor, order: ExpertOrder, *, with_triton: bool | None = None) -> Tensor:
    """The rows of each token times its weights, summed in fp32: [R, H] in x's dtype. Raises ValueError for shapes."""
    must_match(x_SH, weights_RJ, order)
    if not use_triton(x_SH, with_triton):
        return reference(x_SH, weights_RJ, order)
    y_RH: Tensor = _CombineExperts.apply(x_SH, weights_RJ, order)
    return y_RH


def reference(x_SH: Tensor, weights_RJ: Tensor, order: ExpertOrder) -> Tensor:
    """The same in plain torch."""
    x_RJH = x_SH.index_select(0, order.places).view(*weights_RJ.shape, x_SH.shape[1])
    return (wide(x_RJH) * weights_RJ.unsqueeze(-1)).sum(1).to(x_SH.dtype)


def must_match(x_SH: Tensor, weights_RJ: Tensor, order: ExpertOrder) -> None:
    """Raises ValueError unless there is a row for each weight and each place."""
    rows = len(order.sources)
    if x_SH.ndim != 2 or len(x_SH) != rows or weights_RJ.shape != (rows // order.each, order.each):
        shapes = [tuple(x.shape) for x in (x_SH, weights_RJ, order.sources)]
        raise ValueError(f"x, weights and order are {shapes}: they must be [R * J, H], [R, J] and [R * J].")


@jit
def _backward_kernel(
    x_ptr,
    weights_ptr,
    order_ptr,
    dy_ptr,
    dx_ptr,
    dw_ptr,
    x_stride,
    features,
    each,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    place = tl.load(order_ptr + row)
    weight = tl.load(weights_ptr + place).to(tl.float32)
    products = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, features, BLOCK):
        column = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * x_stride + column, mask=column < features, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + place // each * features + column, mask=column < features, other=0.0).to(tl.float32)
        products += dy * x
        tl.store(dx_ptr + row * features + column, (dy * weight).to(dx_ptr.dtype.element_ty), mask=column < features)
    tl.store(dw_ptr + place, tl.sum(products, 0).to(dw_ptr.dtype.element_ty))


class _CombineExperts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_SH: Tensor, weights_RJ: Tensor, order: ExpertOrder) -> Tensor:
        ctx.save_for_backward(x_SH, weights_RJ)
        ctx.order = order
        return gathered(x_SH, order, weights_RJ)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        x_SH, weights_RJ = ctx.saved_tensors
        x_SH, weights_RJ, dy_RH = as_rows(x_SH), weights_RJ.contiguous(), dy.contiguous()
        rows, features = x_SH.shape
        dx_SH = torch.empty(rows, features, dtype=x_SH.dtype, device=x_SH.device)
        dweights_RJ = torch.empty(weights_RJ.shape, dtype=weights_RJ.dtype, device=x_SH.device)
        block = min(power_of_two(features), 1024)
        tensors = (x_SH, weights_RJ, ctx.order.sources, dy_RH, dx_SH, dweights_RJ)
        sizes = (x_SH.stride(0), features, ctx.order.each)
        launch(_backward_kernel, (rows,), *tensors, *sizes, BLOCK=block, num_warps=warps(block))
        return dx_SH, dweights_RJ, None
