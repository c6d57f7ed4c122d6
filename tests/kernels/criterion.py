"""When a kernel is right: its error against the fp64 truth is under twice the error that torch makes in that dtype.

The error is the largest difference over the largest value of the truth. On top comes a floor, without which a result
that torch happens to hit exactly could not be met: one rounding to the dtype, and 1e-6 for the order of fp32 sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def check(
    kernel: Callable[..., Any],
    reference: Callable[..., Any],
    *tensors: Tensor,
    times: float = 2.0,
    torch_in_dtype: Callable[..., Any] | None = None,
) -> None:
    """`kernel(*tensors)` against `reference(*tensors)`: outputs and the gradients of every floating tensor.

    Both give a tensor or a tuple of them. Inputs and incoming gradients must come out as they went in. `times` is 2
    but where the error of torch is a matter of luck. `torch_in_dtype` is what torch does where the reference computes
    in fp32 what torch would round in between.
    """
    truth, upstream = run(reference, [_double(x) for x in tensors])
    gradients = [g.to(_dtype(tensors)) for g in upstream]
    truth, _ = run(reference, [_double(x) for x in tensors], [g.double() for g in gradients])
    usual, _ = run(torch_in_dtype or reference, list(tensors), gradients)
    before = [x.clone() for x in (*tensors, *gradients)]
    with poisoned():
        ours, _ = run(kernel, list(tensors), gradients)
    for was, now in zip(before, (*tensors, *gradients), strict=True):
        assert torch.equal(was, now), "written into an input"
    assert len(ours) == len(usual) == len(truth)
    for number, (one, other, true) in enumerate(zip(ours, usual, truth, strict=True)):
        assert one.dtype == other.dtype
        assert one.shape == true.shape
        mine, theirs = error(one, true), error(other, true)
        assert mine <= times * theirs + floor(one.dtype), f"value {number}: error {mine:.2e}, torch's {theirs:.2e}"


def run(
    function: Callable[..., Any], tensors: list[Tensor], upstream: list[Tensor] | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs followed by gradients, for random incoming gradients unless they are given."""
    leaves = [x.detach().requires_grad_(x.is_floating_point()) for x in tensors]
    result = function(*leaves)
    outputs = list(result) if isinstance(result, tuple) else [result]
    upstream = [torch.randn_like(y) for y in outputs] if upstream is None else upstream
    into = [g.to(y.dtype) for g, y in zip(upstream, outputs, strict=True)]
    gradients = torch.autograd.grad(outputs, [x for x in leaves if x.requires_grad], into)
    return [y.detach() for y in outputs] + list(gradients), upstream


def error(value: Tensor, truth: Tensor) -> float:
    """Largest difference over the largest value of the truth; infinite where a value is not finite."""
    if truth.numel() == 0:
        return 0.0
    if not value.isfinite().all():
        return math.inf
    largest = truth.abs().max().item()
    return (value.double() - truth).abs().max().item() / (largest or 1.0)


def floor(dtype: torch.dtype) -> float:
    return max(torch.finfo(dtype).eps * 0.5, 1e-6)


@contextmanager
def poisoned() -> Iterator[None]:
    """Fresh memory is full of NaN (of the largest number, for whole numbers), and torch refuses random orders."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def randn(*shape: int, dtype: torch.dtype, device: str) -> Tensor:
    return torch.randn(*shape, device=device).to(dtype)


def packed_positions(lengths: list[int], device: str) -> Tensor:
    """Positions of the tokens of documents one after the other; some may be empty."""
    return torch.cat([torch.arange(length) for length in lengths]).to(device)


def rotary_tables(positions: int, pairs: int, device: str) -> tuple[Tensor, Tensor]:
    """Cosines and sines [P, C] of the usual angles."""
    angles = torch.outer(torch.arange(positions), 10_000.0 ** (-torch.arange(pairs) / pairs)).to(device)
    return angles.cos(), angles.sin()


def _double(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def _dtype(tensors: tuple[Tensor, ...]) -> torch.dtype:
    return next(x.dtype for x in tensors if x.is_floating_point())
