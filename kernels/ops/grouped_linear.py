"""Experts' linear layer: y[t] = W[e] x[t] + b[e] for tokens sorted by expert, of which each has its own matrix.

dx[t] = W[e]^T dy[t], dW[e] = sum over the expert's tokens of dy[t] x[t]^T, db[e] = the same sum of dy[t].
Gale et al. 2022 (MegaBlocks, arXiv 2211.15841): neither padding to the fullest expert nor dropping tokens.
Tokens of an expert are cut into tiles of HIGH, so there are at most T // HIGH + E of them, and one more group for the
tokens of no expert: as many programs start, without asking the device how many it takes, and each finds its tile in the
offsets. Nothing is added in an order of chance. Shapes: T tokens, E experts, N outputs, K inputs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runner.kernels.launch import as_rows, divide_up, interpreted, jit, launch, power_of_two, tl, use_triton


def grouped_linear(
    x_TK: Tensor,
    weight: Tensor,
    offsets_E: Tensor,
    *,
    bias_EN: Tensor | None = None,
    transposed: bool = False,
    with_triton: bool | None = None,
) -> Tensor:
    """Tokens [T, K] through the experts' matrices [E, N, K], or [E, K, N] where `transposed`: [T, N] in x's dtype.

    Expert e has the tokens from `offsets_E[e - 1]` (0 for the first) up to `offsets_E[e]`, int32 on x's device and not
    falling, as torch's grouped_mm has them. Tokens past the last offset belong to nobody: they give 0, and get a
    gradient of 0. Raises ValueError for shapes or dtypes that do not fit.
    """
    must_match(x_TK, weight, offsets_E, bias_EN, transposed)
    if not use_triton(x_TK, with_triton):
        return reference(x_TK, weight, offsets_E, bias_EN=bias_EN, transposed=transposed)
    weight_ENK = weight.transpose(1, 2) if transposed else weight
    y_TN: Tensor = _GroupedLinear.apply(as_rows(x_TK), weight_ENK, offsets_E.contiguous(), bias_EN)
    return y_TN


def reference(
    x_TK: Tensor, weight: Tensor, offsets_E: Tensor, *, bias_EN: Tensor | None = None, transposed: bool = False
) -> Tensor:
    """The same in plain torch, expert after expert; on a GPU it waits for the offsets."""
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
    y_ptr,
    x_stride,
    w_expert_stride,
    w_output_stride,
    w_input_stride,
    tokens,
    experts,
    outputs,
    inputs,
    tiles,
    BIAS: tl.constexpr,
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
    x_at = x_ptr + token[:, None] * x_stride + deep[None, :]
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
        y += tl.load(at, mask=(output < outputs) & known, other=0.0).to(tl.float32)[None, :]
    y_at = y_ptr + token[:, None] * outputs + output[None, :]
    tl.store(y_at, y.to(y_ptr.dtype.element_ty), mask=here[:, None] & (output < outputs)[None, :])


@jit
def _weight_kernel(
    a_ptr,
    b_ptr,
    offsets_ptr,
    dw_ptr,
    a_stride,
    b_stride,
    rows,
    columns,
    UPCAST: tl.constexpr,
    HIGH: tl.constexpr,
    WIDE: tl.constexpr,
    DEEP: tl.constexpr,
):
    """dw[e] = sum over the expert's tokens of a[t] b[t]^T: [rows, columns]."""
    across = tl.cdiv(columns, WIDE)
    expert = tl.program_id(1)
    row = tl.program_id(0) // across * HIGH + tl.arange(0, HIGH)
    column = tl.program_id(0) % across * WIDE + tl.arange(0, WIDE)
    start = tl.load(offsets_ptr + expert - 1, mask=expert > 0, other=0)
    end = tl.load(offsets_ptr + expert)
    dw = tl.zeros((HIGH, WIDE), tl.float32)
    for at in range(start, end, DEEP):
        token = (at + tl.arange(0, DEEP)).to(tl.int64)
        a_at, b_at = a_ptr + token[None, :] * a_stride + row[:, None], b_ptr + token[:, None] * b_stride + column
        a = tl.load(a_at, mask=(token < end)[None, :] & (row < rows)[:, None], other=0.0)
        b = tl.load(b_at, mask=(token < end)[:, None] & (column < columns)[None, :], other=0.0)
        if UPCAST:
            a, b = a.to(tl.float32), b.to(tl.float32)
        dw = tl.dot(a, b, dw, input_precision="ieee")
    dw_at = dw_ptr + (expert.to(tl.int64) * rows + row[:, None]) * columns + column[None, :]
    tl.store(dw_at, dw.to(dw_ptr.dtype.element_ty), mask=(row < rows)[:, None] & (column < columns)[None, :])


@jit
def _bias_kernel(dy_ptr, offsets_ptr, db_ptr, dy_stride, outputs, HIGH: tl.constexpr, WIDE: tl.constexpr):
    expert = tl.program_id(1)
    output = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    start = tl.load(offsets_ptr + expert - 1, mask=expert > 0, other=0)
    end = tl.load(offsets_ptr + expert)
    db = tl.zeros((HIGH, WIDE), tl.float32)
    for at in range(start, end, HIGH):
        token = (at + tl.arange(0, HIGH)).to(tl.int64)
        inside = (token < end)[:, None] & (output < outputs)[None, :]
        db += tl.load(dy_ptr + token[:, None] * dy_stride + output[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(db_ptr + expert * outputs + output, tl.sum(db, 0).to(db_ptr.dtype.element_ty), mask=output < outputs)


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TK: Tensor, weight_ENK: Tensor, offsets_E: Tensor, bias_EN: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_TK, weight_ENK, offsets_E)
        ctx.bias_dtype = None if bias_EN is None else bias_EN.dtype
        return _product(x_TK, weight_ENK, offsets_E, bias_EN)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x_TK, weight_ENK, offsets_E = ctx.saved_tensors
        x_wanted, weight_wanted, _, bias_wanted = ctx.needs_input_grad
        dy_TN = as_rows(dy)
        dx_TK = _product(dy_TN, weight_ENK.transpose(1, 2), offsets_E, None) if x_wanted else None
        dweight_ENK = None
        if weight_wanted and weight_ENK.stride(1) == 1:  # transposed: the gradient lies as the weight does
            dweight_ENK = _weight_gradient(x_TK, dy_TN, offsets_E).transpose(1, 2)
        elif weight_wanted:
            dweight_ENK = _weight_gradient(dy_TN, x_TK, offsets_E)
        return dx_TK, dweight_ENK, None, _bias_gradient(dy_TN, offsets_E) if bias_wanted else None


def _product(x_TK: Tensor, weight_ENK: Tensor, offsets_E: Tensor, bias_EN: Tensor | None) -> Tensor:
    (tokens, inputs), (experts, outputs, _) = x_TK.shape, weight_ENK.shape
    y_TN = torch.empty(tokens, outputs, dtype=x_TK.dtype, device=x_TK.device)
    high = min(max(power_of_two(tokens // max(experts, 1)), 16), _widest(x_TK))  # an expert's usual share of the tokens
    wide, deep = _widest(x_TK), 64 if x_TK.element_size() == 2 else 32
    cut = {"HIGH": high, "WIDE": wide, "DEEP": deep, "num_warps": 8 if high * wide > 8192 else 4}
    tiles = tokens // high + experts + 1
    bias = x_TK if bias_EN is None else bias_EN.contiguous()
    launch(
        _product_kernel,
        (tiles * divide_up(outputs, wide),),
        *(x_TK, weight_ENK, bias, offsets_E, y_TN, x_TK.stride(0), *weight_ENK.stride()),
        *(tokens, experts, outputs, inputs, tiles),
        BIAS=bias_EN is not None,
        UPCAST=interpreted(),
        EXPERTS=power_of_two(experts + 1),
        TOGETHER=8,
        **cut,
    )
    return y_TN


def _weight_gradient(a_TR: Tensor, b_TC: Tensor, offsets_E: Tensor) -> Tensor:
    rows, columns, experts = a_TR.shape[1], b_TC.shape[1], len(offsets_E)
    dw_ERC = torch.empty(experts, rows, columns, dtype=a_TR.dtype, device=a_TR.device)
    side, deep = _widest(a_TR), 64 if a_TR.element_size() == 2 else 32
    cut = {"HIGH": side, "WIDE": side, "DEEP": deep, "num_warps": 8 if side > 64 else 4}
    launch(
        _weight_kernel,
        (divide_up(rows, side) * divide_up(columns, side), experts),
        *(a_TR, b_TC, offsets_E, dw_ERC, a_TR.stride(0), b_TC.stride(0), rows, columns),
        UPCAST=interpreted(),
        **cut,
    )
    return dw_ERC


def _bias_gradient(dy_TN: Tensor, offsets_E: Tensor) -> Tensor:
    outputs, experts = dy_TN.shape[1], len(offsets_E)
    db_EN = torch.empty(experts, outputs, dtype=dy_TN.dtype, device=dy_TN.device)
    programs = (divide_up(outputs, 64), experts)
    launch(_bias_kernel, programs, dy_TN, offsets_E, db_EN, dy_TN.stride(0), outputs, HIGH=32, WIDE=64, num_warps=4)
    return db_EN


def _widest(x: Tensor) -> int:
    """Tiles of 128 x 64 in two bytes, and 64 x 32 in four: 32 and 16 KiB a stage of the pipeline, for both operands."""
    return 128 if x.element_size() == 2 else 64
