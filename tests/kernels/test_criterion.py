"""The criterion sees what it must: poison, wrong values, wrong gradients, writes into inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.criterion import check, poisoned


def right(x: Tensor) -> Tensor:
    return x * x


def test_fresh_memory_is_poisoned_and_only_there() -> None:
    with poisoned():
        assert torch.empty(3).isnan().all()
        assert torch.empty_like(torch.ones(2)).isnan().all()
    torch.use_deterministic_algorithms(False)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x * x * 1.0001,
        lambda x: x * x.detach(),  # right values, half of the gradient
        lambda x: torch.where(torch.arange(len(x)) < len(x) - 1, x * x, torch.empty_like(x)),
        lambda x: x.detach().mul_(2.0).mul_(0.5).add_(1e-3) * 0 + x * x,
    ],
    ids=["value", "gradient", "unwritten", "in place"],
)
def test_what_is_wrong_is_seen(wrong: Any) -> None:
    check(right, right, torch.randn(63))
    with pytest.raises(AssertionError):
        check(wrong, right, torch.randn(63))
