"""GEGLU: y = gelu(gate) * up. Shazeer 2020, arXiv 2002.05202; GELU: Hendrycks and Gimpel 2016, arXiv 1606.08415.

Exact: gelu(g) = g * P with P = (1 + erf(g / sqrt 2)) / 2, whose slope is P' = exp(-g^2 / 2) / sqrt(2 pi).
Tanh: P = (1 + tanh u) / 2 = sigmoid(2u) with u = sqrt(2 / pi) * (g + 0.044715 g^3); P' = 2 u' P (1 - P).
dup = dy * gelu(gate), and dgate = dy * up * (P + gate * P'). Shapes: R rows, F features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runner.kernels.launch import jit, tl, use_triton
from runner.kernels.parts import gated


def geglu(gate: Tensor, up: Tensor, *, tanh: bool = False, with_triton: bool | None = None) -> Tensor:
    """gelu(gate) * up for two tensors [..., F] of one shape and dtype, exact or by tanh; else raises ValueError."""
    gated.must_match(gate, up)
    if not use_triton(gate, with_triton):
        return reference(gate, up, tanh=tanh)
    y: Tensor = _GeGlu.apply(gate, up, tanh)
    return y


def reference(gate: Tensor, up: Tensor, *, tanh: bool = False) -> Tensor:
    """The same in plain torch."""
    return torch.nn.functional.gelu(gate, approximate="tanh" if tanh else "none") * up


@jit
def _share(gate, TANH: tl.constexpr):
    """P and P' of the formulas above."""
    if TANH:
        square = gate * gate
        inner = 1.5957691216057308 * gate * (1.0 + 0.044715 * square)
        share = tl.sigmoid(inner)
        # 1 - share would lose its digits where share is near 1: an error of 1.4e-6 in fp32, torch's is 2e-7
        slope = 1.5957691216057308 * (1.0 + 0.134145 * square) * share * tl.sigmoid(-inner)
    else:
        share = 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
        slope = 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
    return share, slope


@jit
def _forward_kernel(gate_ptr, up_ptr, y_ptr, gate_stride, up_stride, features, BLOCK: tl.constexpr, TANH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(gate_ptr + row * gate_stride + column, mask=column < features, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + row * up_stride + column, mask=column < features, other=0.0).to(tl.float32)
    share, _slope = _share(gate, TANH)
    y = gate * share * up
    tl.store(y_ptr + row * features + column, y.to(y_ptr.dtype.element_ty), mask=column < features)


@jit
def _backward_kernel(
    gate_ptr,
    up_ptr,
    dy_ptr,
    dgate_ptr,
    dup_ptr,
    gate_stride,
    up_stride,
    features,
    BLOCK: tl.constexpr,
    TANH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(gate_ptr + row * gate_stride + column, mask=column < features, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + row * up_stride + column, mask=column < features, other=0.0).to(tl.float32)
    dy = tl.load(dy_ptr + row * features + column, mask=column < features, other=0.0).to(tl.float32)
    share, slope = _share(gate, TANH)
    dgate = dy * up * (share + gate * slope)
    dup = dy * gate * share
    tl.store(dgate_ptr + row * features + column, dgate.to(dgate_ptr.dtype.element_ty), mask=column < features)
    tl.store(dup_ptr + row * features + column, dup.to(dup_ptr.dtype.element_ty), mask=column < features)


class _GeGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, tanh: bool) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.tanh = tanh
        return gated.forward(_forward_kernel, gate, up, TANH=tanh)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        return *gated.backward(_backward_kernel, gate, up, dy, TANH=ctx.tanh), None
