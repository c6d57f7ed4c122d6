"""SwiGLU: y = silu(gate) * up with silu(g) = g * s and s = 1 / (1 + exp(-g)). Shazeer 2020, arXiv 2002.05202.

dup = dy * silu(gate), and dgate = dy * up * s * (1 + gate * (1 - s)). Shapes: R rows, F features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runner.kernels.launch import jit, tl, use_triton
from runner.kernels.parts import gated


def swiglu(gate: Tensor, up: Tensor, *, with_triton: bool | None = None) -> Tensor:
    """silu(gate) * up for two tensors [..., F] of one shape and dtype; raises ValueError where they differ."""
    gated.must_match(gate, up)
    if not use_triton(gate, with_triton):
        return reference(gate, up)
    y: Tensor = _SwiGlu.apply(gate, up)
    return y


def reference(gate: Tensor, up: Tensor) -> Tensor:
    """The same in plain torch."""
    return torch.nn.functional.silu(gate) * up


@jit
def _forward_kernel(gate_ptr, up_ptr, y_ptr, gate_stride, up_stride, features, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(gate_ptr + row * gate_stride + column, mask=column < features, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + row * up_stride + column, mask=column < features, other=0.0).to(tl.float32)
    y = gate * tl.sigmoid(gate) * up
    tl.store(y_ptr + row * features + column, y.to(y_ptr.dtype.element_ty), mask=column < features)


@jit
def _backward_kernel(
    gate_ptr, up_ptr, dy_ptr, dgate_ptr, dup_ptr, gate_stride, up_stride, features, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(gate_ptr + row * gate_stride + column, mask=column < features, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + row * up_stride + column, mask=column < features, other=0.0).to(tl.float32)
    dy = tl.load(dy_ptr + row * features + column, mask=column < features, other=0.0).to(tl.float32)
    s = tl.sigmoid(gate)
    dgate = dy * up * s * (1.0 + gate * (1.0 - s))
    dup = dy * gate * s
    tl.store(dgate_ptr + row * features + column, dgate.to(dgate_ptr.dtype.element_ty), mask=column < features)
    tl.store(dup_ptr + row * features + column, dup.to(dup_ptr.dtype.element_ty), mask=column < features)


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return gated.forward(_forward_kernel, gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return gated.backward(_backward_kernel, gate, up, dy)
