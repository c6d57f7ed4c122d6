"""A frozen linear layer with a low-rank one beside it; in training sizes bound by its product, in decoding by W."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from runner.kernels.bench.harness.case import Case, Inputs, Peer, Shape, normal
from runner.kernels.ops import lora_linear as op
from runner.kernels.quantised import QuantisedWeight, quantise, size

SCALE = 2.0


def make(shape: Shape, dtype: torch.dtype, device: torch.device, *, form: str | None, grad: bool) -> Inputs:
    """x [M, K], a frozen weight [N, K], A [R, K], B [N, R]."""
    rows, features, outputs, rank = (shape[name] for name in "MKNR")
    like = (dtype, device)
    weight = normal(outputs, features, like=like, grad=False, scale=features**-0.5)
    a = normal(rank, features, like=like, grad=grad, scale=features**-0.5)
    b = normal(outputs, rank, like=like, grad=grad, scale=rank**-0.5)
    return normal(rows, features, like=like, grad=grad), quantise(weight, form) if form else weight, a, b


def training(shape: Shape, _: int) -> Mapping[str, float]:
    """Operations: the product with W forward and for dx; the low-rank ones, two forward and four backward."""
    rows, features, outputs, rank = (shape[name] for name in "MKNR")
    product, low = 2.0 * rows * features * outputs, 2.0 * rows * rank * (features + outputs)
    return {"forward": product + low, "backward": product + 2 * low}


def decoding(shape: Shape, itemsize: int, *, form: str | None) -> Mapping[str, float]:
    """Bytes: W, A and B."""
    rows, features, outputs, rank = (shape[name] for name in "MKNR")
    weight = size(form, (outputs, features)) if form else outputs * features * itemsize
    return {"forward": float(weight + (rank + rows) * (features + outputs) * itemsize)}


def as_peft(x: Tensor, weight: Tensor | QuantisedWeight, a_RK: Tensor, b_NR: Tensor) -> Tensor:
    """What PEFT does over torch's and bitsandbytes' linear layers: base, A, B, sum."""
    base = x @ weight.T if isinstance(weight, Tensor) else _Dequantised.apply(x, weight)
    y: Tensor = base + ((x @ a_RK.T) @ b_NR.T) * SCALE
    return y


class _Dequantised(torch.autograd.Function):
    """x W^T with a weight in full for the time of a product, in backward again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: QuantisedWeight) -> Tensor:
        ctx.weight = weight
        return x @ weight.dequantise(x.dtype).T

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return dy @ ctx.weight.dequantise(dy.dtype), None


def case(name: str, *, form: str | None, decode: bool = False, **shape: int) -> Case:
    """Of a plain weight or a quantised one."""
    return Case(
        name=name,
        shape=shape,
        tiny={"M": 5, "K": 256, "N": 24, "R": 4},
        make=partial(make, form=form, grad=not decode),
        own=partial(op.lora_linear, scale=SCALE),
        reference=partial(op.reference, scale=SCALE),
        compiled=None if form else as_peft,
        peers=(Peer(name="torch", run=as_peft),),
        work=partial(decoding, form=form) if decode else training,
        bound="memory" if decode else "matrix",
        gradients=not decode,
    )


CASES = (
    case("llama-8b-gate", form=None, M=8192, K=4096, N=14336, R=16),
    case("llama-8b-gate-nf4", form="nf4", M=8192, K=4096, N=14336, R=16),
    case("llama-8b-gate-nf4-decode", form="nf4", decode=True, M=8, K=4096, N=14336, R=16),
)
