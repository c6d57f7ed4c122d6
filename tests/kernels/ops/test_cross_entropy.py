"""Cross-entropy of logits."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.kernels.ops.cross_entropy import cross_entropy, reference
from runner.kernels.parts import vocabulary
from tests.kernels.criterion import DTYPES, check, poisoned, randn

OPTIONS: list[dict[str, Any]] = [
    {},
    {"softcap": 5.0},
    {"label_smoothing": 0.1, "reduction": "sum"},
    {"z_loss": 1e-2, "reduction": "none"},
    {"softcap": 30.0, "label_smoothing": 0.2, "z_loss": 1e-3},
]


def compare(logits: Tensor, targets: Tensor, **options: Any) -> None:
    def called(function: Any, logits: Tensor) -> Tensor:
        loss: Tensor = function(logits, targets, **options)
        return loss

    check(partial(called, partial(cross_entropy, with_triton=True)), partial(called, reference), logits)


def some_targets(rows: int, entries: int, device: str) -> Tensor:
    targets = torch.randint(entries, (rows,), device=device)
    targets[1::3] = -100
    return targets


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 63), (63, 2), (5, 1000), (4, 1280)], ids=str)
def test_cross_entropy(device: str, shape: tuple[int, int], dtype: torch.dtype, options: dict[str, Any]) -> None:
    compare(3 * randn(*shape, dtype=dtype, device=device), some_targets(*shape, device), **options)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_cross_entropy_of_many_blocks(device: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "WIDEST", 64)
    compare(9 * randn(3, 1000, dtype=torch.float32, device=device), some_targets(3, 1000, device), **options)


def test_cross_entropy_of_a_large_vocabulary(device: str) -> None:
    compare(3 * randn(2, 262_145, dtype=torch.bfloat16, device=device), torch.tensor([262_144, 0], device=device))


def test_cross_entropy_of_a_batch_without_its_last_tokens(device: str) -> None:
    """As models shift: logits are a view with gaps."""
    logits, targets = randn(2, 5, 65, dtype=torch.float32, device=device), some_targets(8, 65, device).view(2, 4)

    def shifted(function: Any, logits: Tensor) -> Tensor:
        loss: Tensor = function(logits[:, :-1], targets)
        return loss

    check(partial(shifted, partial(cross_entropy, with_triton=True)), partial(shifted, reference), logits)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("asked", [True, False], ids=["triton", "reference"])
def test_cross_entropy_of_nothing_but_ignored_rows_is_0(device: str, reduction: str, asked: bool) -> None:
    logits = torch.randn(3, 65, device=device, requires_grad=True)
    with poisoned():
        loss = cross_entropy(
            logits, torch.full((3,), 7, device=device), ignore_index=7, reduction=reduction, with_triton=asked
        )
        loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_cross_entropy_with_forbidden_entries(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "WIDEST", 16)
    logits = torch.randn(2, 100, device=device)
    logits[:, :40] = -float("inf")
    compare(logits, torch.tensor([50, 99], device=device))


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_cross_entropy_of_nan_or_of_a_target_outside_the_vocabulary_is_seen(device: str, softcap: float | None) -> None:
    logits, targets = torch.zeros(3, 9, device=device), torch.tensor([1, 9, 2], device=device)
    logits[2, 0] = float("nan")
    losses = cross_entropy(logits, targets, softcap=softcap, reduction="none", with_triton=True)
    assert losses.isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_is_the_one_of_torch(label_smoothing: float) -> None:
    logits, targets = torch.randn(9, 65), some_targets(9, 65, "cpu")
    expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    torch.testing.assert_close(cross_entropy(logits, targets, label_smoothing=label_smoothing), expected)


def test_cross_entropy_refuses_what_does_not_match() -> None:
    with pytest.raises(ValueError, match="they must be"):
        cross_entropy(torch.ones(2, 3), torch.ones(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="'mean', 'sum' or 'none'"):
        cross_entropy(torch.ones(2, 3), torch.zeros(2, dtype=torch.int64), reduction="average")


def test_cross_entropy_of_rows_that_lie_further_apart_than_int32_counts(device: str) -> None:
    """Of 4 GiB only the pages of three short rows are ever touched."""
    memory = torch.empty(2**31 + 200, dtype=torch.float16, device=device)
    logits = memory.as_strided((3, 63), (2**30, 1))
    logits.copy_(torch.randn(3, 63))
    targets = torch.tensor([5, 0, 62], device=device)
    losses = cross_entropy(logits, targets, reduction="none", with_triton=True)
    torch.testing.assert_close(losses, reference(logits, targets, reduction="none"), rtol=1e-3, atol=1e-3)
