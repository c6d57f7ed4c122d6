"""Rows sorted by expert, weighed and back with their tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from runner.kernels.ops.combine_experts import combine_experts, reference
from runner.kernels.parts.expert_order import ExpertOrder, by_expert
from tests.kernels.criterion import DTYPES, check, randn

SIZES = [(1, 1, 63), (21, 2, 5), (5, 8, 1000), (3, 4, 1280)]


def ordered(tokens: int, each: int, device: str, experts: int = 9) -> ExpertOrder:
    return by_expert(torch.rand(tokens, experts, device=device).topk(each).indices, experts)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_combine_experts(device: str, size: tuple[int, int, int], dtype: torch.dtype) -> None:
    tokens, each, features = size
    x = randn(tokens * each, features, dtype=dtype, device=device)
    weights, order = randn(tokens, each, dtype=dtype, device=device), ordered(tokens, each, device)
    check(partial(combined, combine_experts, order, with_triton=True), partial(combined, reference, order), x, weights)


def test_combine_experts_of_wide_weights_and_rows_that_are_not_dense(device: str) -> None:
    """Routers in fp32 are usual; the gradient of their weights comes in fp32 from a row read where it lies."""
    x, weights = randn(12, 2, 40, dtype=torch.bfloat16, device=device)[:, 1], torch.randn(6, 2, device=device)
    order = ordered(6, 2, device)
    check(partial(combined, combine_experts, order, with_triton=True), partial(combined, reference, order), x, weights)


def test_combine_experts_of_no_tokens(device: str) -> None:
    order = ordered(0, 2, device)
    x, weights = torch.ones(0, 20, device=device), torch.ones(0, 2, device=device)
    check(partial(combined, combine_experts, order, with_triton=True), partial(combined, reference, order), x, weights)


def test_combine_experts_refuses_what_does_not_fit(device: str) -> None:
    with pytest.raises(ValueError, match=r"\[R \* J, H\]"):
        combine_experts(torch.ones(5, 4), torch.ones(3, 2), ordered(3, 2, "cpu"))
    with pytest.raises(ValueError, match=r"\[R \* J, H\]"):
        combine_experts(torch.ones(6, 4), torch.ones(2, 3), ordered(3, 2, "cpu"))


def test_order_by_expert(device: str) -> None:
    """Tokens of an expert keep their order, an expert without tokens ends where it begins, strangers come last."""
    order = by_expert(torch.tensor([[4, 0], [2, 4], [0, 2]], device=device), 4)
    assert order.sources.tolist() == [1, 4, 2, 5, 0, 3]
    assert order.ends.tolist() == [2, 2, 4, 4]
    assert order.ends.dtype == torch.int32
    assert torch.equal(order.places[order.sources], torch.arange(6, device=device))


def combined(
    function: Callable[..., Tensor], order: ExpertOrder, x: Tensor, weights: Tensor, **options: bool
) -> Tensor:
    return function(x, weights, order, **options)
