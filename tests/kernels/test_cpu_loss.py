"""The loss that CPUs make in chunks, against torch's own."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.kernels.cpu_loss import linear_cross_entropy
from tests.kernels.criterion import check, randn


def reference(hidden: Tensor, weight: Tensor, targets: Tensor, *, softcap: float | None, reduction: str) -> Tensor:
    logits = hidden @ weight.T
    logits = logits.float() if logits.dtype != torch.float64 else logits
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    summed = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    return summed / (targets != -100).sum().clamp(min=1) if reduction == "mean" else summed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("fields", [{}, {"softcap": 3.0, "reduction": "sum"}, {"chunk_rows": 4}], ids=str)
def test_loss_and_gradients(dtype: torch.dtype, fields: dict[str, Any]) -> None:
    hidden, weight = randn(11, 24, dtype=dtype, device="cpu"), randn(65, 24, dtype=dtype, device="cpu")
    targets = torch.randint(0, 65, (11,))
    targets[[0, 3, 10]] = -100
    settings = {"softcap": None, "reduction": "mean"} | {k: v for k, v in fields.items() if k != "chunk_rows"}
    check(
        lambda x, w: linear_cross_entropy(x, w, targets, **fields),
        partial(lambda x, w, **k: reference(x, w, targets, **k), **settings),
        hidden,
        weight,
    )


def test_nothing_to_learn_gives_0() -> None:
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    loss = linear_cross_entropy(hidden, weight, torch.full((3,), -100))
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)
    linear_cross_entropy(hidden, weight, torch.tensor([0, 4, 2])).backward()
    assert hidden.grad is not None
    assert hidden.grad.any()


def test_fp16_sums_over_many_rows_stay_finite() -> None:
    """Before the mean is taken, one frequent target and a feature of 40 give a sum past 65,504, fp16's largest."""
    hidden = torch.zeros(2048, 8, dtype=torch.float16, requires_grad=True)
    with torch.no_grad():
        hidden[:, 0] = 40.0
    weight = torch.zeros(50, 8, dtype=torch.float16, requires_grad=True)
    linear_cross_entropy(hidden, weight, torch.zeros(2048, dtype=torch.int64), chunk_rows=2048).backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[0, 0].item(), 40 * (1 / 50 - 1), rtol=1e-2, atol=0)
