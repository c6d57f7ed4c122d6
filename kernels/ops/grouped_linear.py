"""Experts' linear layer: y[t] = W[e] x[t] + b[e] for tokens sorted by expert, of which each has its own matrix.

dx[t] = W[e]^T dy[t], dW[e] = sum over the expert's tokens of dy[t] x[t]^T, db[e] = the same sum of dy[t].
Gale et al. 2022 (MegaBlocks, arXiv 2211.15841): neither padding to the fullest expert nor dropping tokens.
Tokens of an expert are cut into tiles of HIGH, so there are at most T // HIGH + E of them, and one more group for the
tokens of no expert: as many programs start, without asking the device how many it takes, and each finds its tile in the
offsets. Nothing is added in an order of chance. Tokens not yet sorted are read where they lie: no sorted copy is
made or kept. Shapes: T tokens, E experts, N outputs, K inputs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runner.kernels.launch import as_rows, divide_up, interpreted, jit, launch, power_of_two, tl, use_triton
from runner.kernels.parts.expert_order import ExpertOrder, gathered


def grouped_linear(
    x_TK: Tensor,
    weight: Tensor,
    offsets_E: Tensor,
    *,
    bias_EN: Tensor | None = None,
    transposed: bool = False,
    order: ExpertOrder | None = None,
    with_triton: bool | None = None,
) -> Tensor:
    """Tokens [T, K] through the experts' matrices [E, N, K], or [E, K, N] where `transposed`: [T, N] in x's dtype.

    Expert e has the tokens from `offsets_E[e - 1]` (0 for the first) up to `offsets_E[e]`, int32 on x's device and not
    falling, as torch's grouped_mm has them. Tokens past the last offset belong to nobody: they give 0, and get a
    gradient of 0. With an `order`, x is not sorted: row t of the result is of its row `order.sources[t] // order.each`.
    Raises ValueError for shapes or dtypes that do not fit.
    """
    must_match(x_TK, weight, offsets_E, bias_EN, transposed)
    if order is not None and len(order.sources) != len(x_TK) * order.each:
        raise ValueError(f"x has {len(x_TK)} tokens, and {order.each} experts of each make not {len(order.sources)}.")
    if not use_triton(x_TK, with_triton):
        return reference(x_TK, weight, offsets_E, bias_EN=bias_EN, transposed=transposed, order=order)
    weight_ENK = weight.transpose(1, 2) if transposed else weight
    y_TN: Tensor = _GroupedLinear.apply(as_rows(x_TK), weight_ENK, offsets_E.contiguous(), bias_EN, order)
    return y_TN


def reference(
    x_TK: Tensor,
    weight: Tensor,
    offsets_E: Tensor,
    *,
    bias_EN: Tensor | None = None,
    transposed: bool = False,
    order: ExpertOrder | None = None,
) -> Tensor:
    """The same in plain torch, expert after expert; on a GPU it waits for the offsets."""
    if order is not None:
        x_TK = x_TK.index_select(0, order.sources // order.each)
    ends = [0, *offsets_E.tolist()]
    counts = [end - start for start, end in pairwise(ends)]
    parts = x_TK.split([*counts, len(x_TK) - ends[-1]])
    outputs = weight.shape[2 if transposed else 1]
    # unbound at once, since a gradient of weight[e] would be a stack of zeros around one matrix
    weights = weight.unbind()
    biases = (None,) * len(weights) if bias_EN is None else bias_EN.unbind()
    done = [
        torch.nn.functional.linear(part, matrix.T if transposed else matrix, bias)
        for expert, (part, matrix, bias) in enumerate(zip(parts, weights, biases, strict=False))
        if len(part) or expert == 0  # one at least, so that gradients of 0 reach x and weight
    ]
    return torch.cat([*done, x_TK.new_zeros(len(parts[-1]), outputs)])


def must_match(x_TK: Tensor, weight: Tensor, offsets_E: Tensor, bias_EN: Tensor | None, transposed: bool) -> None:
    """Raises ValueError unless shapes and dtypes fit: kernels would read past the end."""
    experts, outputs, inputs = (weight.transpose(1, 2) if transposed else weight).shape
    bias = (experts, outputs) if bias_EN is None else tuple(bias_EN.shape)
    if x_TK.shape[1:] != (inputs,) or offsets_E.shape != (experts,) or bias != (experts, outputs):
        shapes = [tuple(x.shape) for x in (x_TK, weight, offsets_E, bias_EN) if x is not None]
        raise ValueError(f"x, weight, offsets, bias are {shapes}: they must be [T, K], [E, N, K], [E], [E, N].")
    dtypes = {x.dtype for x in (x_TK, weight, bias_EN) if x is not None}
    if len(dtypes) > 1 or offsets_E.dtype != torch.int32:
        raise ValueError(f"x, weight and bias are {dtypes}, offsets {offsets_E.dtype}: one dtype, and int32.")


@jit
def _place(offsets_ptr, experts, tokens, tile, HIGH: tl.constexpr, EXPERTS: tl.constexpr):
    """Expert, first token and end of a tile; expert number E has the tokens of nobody, past it all is 0."""
    expert = tl.arange(0, EXPERTS)
    ends = tl.load(offsets_ptr + expert, mask=expert < experts, other=tokens)
    starts = tl.load(offsets_ptr + expert - 1, mask=(expert > 0) & (expert <= experts), other=0)
    starts = tl.where(expert > experts, ends, starts)
    tiles = (ends - starts + HIGH - 1) // HIGH
    until = tl.cumsum(tiles, 0)
    mine = tl.sum((until <= tile).to(tl.int32), 0)
    start = tl.sum(tl.where(expert == mine, starts + (tile - until + tiles) * HIGH, 0), 0)
    end = tl.sum(tl.where(expert == mine, ends, 0), 0)
    return mine, start, end


@jit
def _product_kernel(
    x_ptr,
    w_ptr,
    b_ptr,
    offsets_ptr,
    sources_ptr,
    y_ptr,
    x_stride,
    each,
    w_expert_stride,
    w_output_stride,
    w_input_stride,
    tokens,
    experts,
    outputs,
    inputs,
    tiles,
    BIAS: tl.constexpr,
    SORTED: tl.constexpr,
    UPCAST: tl.constexpr,
    EXPERTS: tl.constexpr,
    HIGH: tl.constexpr,
    WIDE: tl.constexpr,
    DEEP: tl.constexpr,
    TOGETHER: tl.constexpr,
):
    # programs of TOGETHER tiles go through the columns side by side, so that a matrix is read from the cache
    program, columns = tl.program_id(0), tl.cdiv(outputs, WIDE)
    first = program // (TOGETHER * columns) * TOGETHER
    beside = tl.minimum(tiles - first, TOGETHER)
    within = program % (TOGETHER * columns)
    expert, start, end = _place(offsets_ptr, experts, tokens, first + within % beside, HIGH, EXPERTS)
    if start >= end:
        return
    token = start.to(tl.int64) + tl.arange(0, HIGH)
    output = within // beside * WIDE + tl.arange(0, WIDE)
    deep = tl.arange(0, DEEP)
    here = token < end
    known = expert < experts  # else the tokens are nobody's
    row = token if SORTED else tl.load(sources_ptr + token, mask=here, other=0) // each
    x_at = x_ptr + row[:, None] * x_stride + deep[None, :]
    w_at = w_ptr + expert.to(tl.int64) * w_expert_stride + output[None, :].to(tl.int64) * w_output_stride
    w_at += deep[:, None].to(tl.int64) * w_input_stride
    y = tl.zeros((HIGH, WIDE), tl.float32)
    for at in range(0, tl.where(known, inputs, 0), DEEP):
        x = tl.load(x_at, mask=here[:, None] & (at + deep < inputs)[None, :], other=0.0)
        w = tl.load(w_at, mask=(at + deep < inputs)[:, None] & (output < outputs)[None, :], other=0.0)
        if UPCAST:
            x, w = x.to(tl.float32), w.to(tl.float32)
        y = tl.dot(x, w, y, input_precision="ieee")
        x_at += DEEP
        w_at += DEEP * w_input_stride
    if BIAS:
        at = b_ptr + expert * outputs + output
        y += tl.load(at, mask=output < tl.where(known, outputs, 0), other=0.0).to(tl.float32)[None, :]
    y_at = y_ptr + token[:, None] * outputs + output[None, :]
    tl.store(y_at, y.to(y_ptr.dtype.element_ty), mask=here[:, None] & (output < outputs)[None, :])


@jit
def _weight_kernel(
    x_ptr,
    dy_ptr,
    offsets_ptr,
    sources_ptr,
    dw_ptr,
    x_stride,
    dy_stride,
    each,
    outputs,
    inputs,
    SORTED: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    UPCAST: tl.constexpr,
    SIDE: tl.constexpr,
    DEEP: tl.constexpr,
):
    expert = tl.program_id(1)
    start = tl.load(offsets_ptr + expert - 1, mask=expert > 0, other=0)
    end = tl.load(offsets_ptr + expert)
    across = tl.cdiv(inputs, SIDE)
    output = tl.program_id(0) // across * SIDE + tl.arange(0, SIDE)
    column = tl.program_id(0) % across * SIDE + tl.arange(0, SIDE)
    dw = tl.zeros((SIDE, SIDE), tl.float32)  # as it lies in memory: [output, input], or transposed
    for at in range(start, end, DEEP):
        token = (at + tl.arange(0, DEEP)).to(tl.int64)
        here = token < end
        row = token if SORTED else tl.load(sources_ptr + token, mask=here, other=0) // each
        if TRANSPOSED:
            x_at, x_here = x_ptr + row[None, :] * x_stride + column[:, None], here[None, :] & (column < inputs)[:, None]
            dy_at, dy_here = dy_ptr + token[:, None] * dy_stride + output, here[:, None] & (output < outputs)[None, :]
        else:
            x_at, x_here = x_ptr + row[:, None] * x_stride + column, here[:, None] & (column < inputs)[None, :]
            dy_at = dy_ptr + token[None, :] * dy_stride + output[:, None]
            dy_here = here[None, :] & (output < outputs)[:, None]
        x, dy = tl.load(x_at, mask=x_here, other=0.0), tl.load(dy_at, mask=dy_here, other=0.0)
        if UPCAST:
            x, dy = x.to(tl.float32), dy.to(tl.float32)
        left, right = (x, dy) if TRANSPOSED else (dy, x)
        dw = tl.dot(left, right, dw, input_precision="ieee")
    dw_ptr += expert.to(tl.int64) * outputs * inputs
    if TRANSPOSED:
        dw_at, inside = column[:, None].to(tl.int64) * outputs + output, (column < inputs)[:, None] & (output < outputs)
    else:
        dw_at, inside = output[:, None].to(tl.int64) * inputs + column, (output < outputs)[:, None] & (column < inputs)
    tl.store(dw_ptr + dw_at, dw.to(dw_ptr.dtype.element_ty), mask=inside)


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TK: Tensor,
        weight_ENK: Tensor,
        offsets_E: Tensor,
        bias_EN: Tensor | None,
        order: ExpertOrder | None,
    ) -> Tensor:
        x_wanted, weight_wanted, *_ = ctx.needs_input_grad
        # what is frozen, as under adapters, needs nothing kept of the other
        ctx.save_for_backward(x_TK if weight_wanted else None, weight_ENK if x_wanted else None, offsets_E)
        ctx.order, ctx.transposed = order, weight_ENK.stride(1) == 1 < weight_ENK.stride(2)
        return _product(x_TK, weight_ENK, offsets_E, bias_EN, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x_TK, weight_ENK, offsets_E = ctx.saved_tensors
        dy_TN, order = as_rows(dy), ctx.order
        dx_TK = dweight_ENK = dbias_EN = None
        if weight_ENK is not None:
            dx_TK = _product(dy_TN, weight_ENK.transpose(1, 2), offsets_E, None, None)
            dx_TK = dx_TK if order is None else gathered(dx_TK, order)
        if x_TK is not None:
            dweight_ENK = _weight_gradient(x_TK, dy_TN, offsets_E, order, transposed=ctx.transposed)
        if ctx.needs_input_grad[3]:
            ones_T1 = dy_TN.new_ones(1, 1).expand(len(dy_TN), 1)  # a bias is the weight of an input that is 1
            dbias_EN = _weight_gradient(ones_T1, dy_TN, offsets_E, None, transposed=False).squeeze(2)
        return dx_TK, dweight_ENK, None, dbias_EN, None


def _product(
    x_TK: Tensor, weight_ENK: Tensor, offsets_E: Tensor, bias_EN: Tensor | None, order: ExpertOrder | None
) -> Tensor:
    experts, outputs, inputs = weight_ENK.shape
    tokens = len(x_TK) if order is None else len(order.sources)
    y_TN = torch.empty(tokens, outputs, dtype=x_TK.dtype, device=x_TK.device)
    wide, deep = _tile(x_TK)
    high = min(max(power_of_two(tokens // max(experts, 1)), 16), wide)  # an expert's usual share of the tokens
    tiles = tokens // high + experts + 1
    bias = x_TK if bias_EN is None else bias_EN.contiguous()
    sources, each = (offsets_E, 1) if order is None else (order.sources, order.each)
    launch(
        _product_kernel,
        (tiles * divide_up(outputs, wide),),
        *(x_TK, weight_ENK, bias, offsets_E, sources, y_TN, x_TK.stride(0), each, *weight_ENK.stride()),
        *(tokens, experts, outputs, inputs, tiles),
        BIAS=bias_EN is not None,
        SORTED=order is None,
        UPCAST=interpreted(),
        EXPERTS=power_of_two(experts + 1),
        TOGETHER=8,
        num_warps=8 if high * wide > 8192 else 4,
        HIGH=high,
        WIDE=wide,
        DEEP=deep,
    )
    return y_TN


def _weight_gradient(
    x_TK: Tensor, dy_TN: Tensor, offsets_E: Tensor, order: ExpertOrder | None, *, transposed: bool
) -> Tensor:
    outputs, inputs, experts = dy_TN.shape[1], x_TK.shape[1], len(offsets_E)
    high, wide = (inputs, outputs) if transposed else (outputs, inputs)
    dw = torch.empty(experts, high, wide, dtype=x_TK.dtype, device=x_TK.device)
    sources, each = (offsets_E, 1) if order is None else (order.sources, order.each)
    side, deep = _tile(x_TK)
    launch(
        _weight_kernel,
        (divide_up(outputs, side) * divide_up(inputs, side), experts),
        *(x_TK, dy_TN, offsets_E, sources, dw, x_TK.stride(0), dy_TN.stride(0), each, outputs, inputs),
        SORTED=order is None,
        TRANSPOSED=transposed,
        UPCAST=interpreted(),
        SIDE=side,
        DEEP=deep,
        num_warps=8 if side > 64 else 4,
    )
    return dw.transpose(1, 2) if transposed else dw


def _tile(x: Tensor) -> tuple[int, int]:
    """Side and depth: 32 KiB a stage of the pipeline for both operands in two bytes, 16 KiB in four."""
    return (128, 64) if x.element_size() == 2 else (64, 32)
