"""Cross-entropy of hidden states, in chunks."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.kernels.ops.linear_cross_entropy import linear_cross_entropy, reference
from runner.kernels.parts import vocabulary
from tests.kernels.criterion import DTYPES, check, poisoned, randn


def compare(hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk_rows: int, **options: Any) -> None:
    def called(function: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        loss: Tensor = function(hidden, weight, targets, **options)
        return loss

    ours = partial(linear_cross_entropy, chunk_rows=chunk_rows, with_triton=True)
    check(partial(called, ours), partial(called, reference), hidden, weight)


def some_targets(shape: tuple[int, ...], entries: int, device: str) -> Tensor:
    targets = torch.randint(entries, shape, device=device)
    targets[..., 1::3] = -100
    return targets


@pytest.mark.parametrize(
    "options", [{}, {"softcap": 4.0, "reduction": "sum"}, {"label_smoothing": 0.1, "z_loss": 0.01}], ids=str
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("rows", "features", "entries", "chunk_rows"), [(1, 63, 65, 9), (63, 8, 33, 10), (9, 63, 1000, 3)], ids=str
)
def test_linear_cross_entropy(
    device: str, rows: int, features: int, entries: int, chunk_rows: int, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    hidden, weight = (randn(size, features, dtype=dtype, device=device) for size in (rows, entries))
    targets = some_targets((rows,), entries, device)
    compare(hidden, weight * 0.3, targets, chunk_rows=chunk_rows, **options)


def test_linear_cross_entropy_of_a_batch_without_its_last_tokens(device: str) -> None:
    hidden, weight = (randn(*shape, dtype=torch.float32, device=device) for shape in ((2, 6, 16), (40, 16)))
    compare(hidden[:, :-1], weight, some_targets((2, 5), 40, device), chunk_rows=4)


def test_linear_cross_entropy_of_a_head_kept_in_fp32(device: str) -> None:
    hidden, weight = torch.randn(7, 8, device=device).bfloat16(), torch.randn(30, 8, device=device, requires_grad=True)
    loss = linear_cross_entropy(hidden, weight, some_targets((7,), 30, device), with_triton=True)
    assert torch.autograd.grad(loss, weight)[0].dtype == torch.float32


def test_linear_cross_entropy_never_holds_more_logits_than_a_chunk(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    losses = vocabulary.losses

    def counted(logits: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        seen.append(len(logits))
        return losses(logits, *arguments, **options)

    monkeypatch.setattr(vocabulary, "losses", counted)
    hidden, weight = torch.randn(25, 8, device=device), torch.randn(30, 8, device=device)
    linear_cross_entropy(hidden, weight, some_targets((25,), 30, device), chunk_rows=10, with_triton=True)
    assert seen == [10, 10, 5]


@pytest.mark.parametrize("asked", [True, False], ids=["triton", "reference"])
def test_linear_cross_entropy_of_nothing_but_ignored_rows_is_0(device: str, asked: bool) -> None:
    hidden, weight = (torch.randn(size, 8, device=device, requires_grad=True) for size in (5, 30))
    targets = torch.full((5,), -100, device=device)
    with poisoned():
        loss = linear_cross_entropy(hidden, weight, targets, chunk_rows=2, with_triton=asked)
        gradients = torch.autograd.grad(loss, [hidden, weight])
    assert loss.item() == 0
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


def test_linear_cross_entropy_of_no_rows_is_0(device: str) -> None:
    hidden = torch.ones(0, 8, device=device, requires_grad=True)
    targets = torch.zeros(0, dtype=torch.int64, device=device)
    loss = linear_cross_entropy(hidden, torch.ones(30, 8, device=device), targets, with_triton=True)
    loss.backward()
    assert loss.item() == 0


def test_linear_cross_entropy_of_a_frozen_head_gives_the_same(device: str) -> None:
    hidden, weight = (torch.randn(size, 8, device=device, requires_grad=True) for size in (7, 30))
    targets = some_targets((7,), 30, device)
    called = partial(linear_cross_entropy, chunk_rows=3, with_triton=True)
    both = torch.autograd.grad(called(hidden, weight, targets), hidden)[0]
    frozen = called(hidden, weight.detach(), targets)
    assert torch.equal(torch.autograd.grad(frozen, hidden)[0], both)


def test_linear_cross_entropy_backward_twice_gives_the_same(device: str) -> None:
    hidden, weight = (torch.randn(size, 8, device=device, requires_grad=True) for size in (7, 30))
    loss = linear_cross_entropy(hidden, weight, some_targets((7,), 30, device), with_triton=True)
    first = torch.autograd.grad(3 * loss, [hidden, weight], retain_graph=True)
    second = torch.autograd.grad(3 * loss, [hidden, weight])
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_linear_cross_entropy_refuses_what_does_not_match() -> None:
    targets = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="they must be"):
        linear_cross_entropy(torch.ones(2, 3), torch.ones(9, 4), targets)
    with pytest.raises(ValueError, match="'mean' or 'sum'"):
        linear_cross_entropy(torch.ones(2, 3), torch.ones(9, 3), targets, reduction="none")
