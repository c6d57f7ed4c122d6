"""The experts' linear layer: uneven experts, experts without tokens, tokens without experts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from runner.kernels.ops.grouped_linear import grouped_linear, reference
from runner.kernels.parts.expert_order import by_expert
from tests.kernels.criterion import DTYPES, check, poisoned, randn

# tokens of each expert, tokens of nobody, inputs, outputs
SIZES = [
    ([1], 0, 63, 1),
    ([0, 3, 0, 1, 2], 0, 17, 63),
    ([20, 0, 45, 1], 5, 100, 33),
    ([1], 0, 1000, 1),
    ([2], 0, 3, 320),
    ([0, 0], 4, 16, 16),
    ([140, 150], 0, 65, 129),
]


def offsets(counts: list[int], device: str) -> Tensor:
    return torch.tensor(counts, device=device).cumsum(0).to(torch.int32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_grouped_linear(device: str, size: tuple[list[int], int, int, int], dtype: torch.dtype) -> None:
    counts, nobodys, inputs, outputs = size
    x = randn(sum(counts) + nobodys, inputs, dtype=dtype, device=device)
    weight = randn(len(counts), outputs, inputs, dtype=dtype, device=device)
    check(partial(grouped_linear, with_triton=True), reference, x, weight, offsets(counts, device))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES[1:3], ids=str)
def test_grouped_linear_of_transposed_matrices_with_biases(
    device: str, size: tuple[list[int], int, int, int], dtype: torch.dtype
) -> None:
    counts, nobodys, inputs, outputs = size
    x = randn(sum(counts) + nobodys, inputs, dtype=dtype, device=device)
    weight = randn(len(counts), inputs, outputs, dtype=dtype, device=device)
    bias, ends = randn(len(counts), outputs, dtype=dtype, device=device), offsets(counts, device)

    def of(function: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return function(x, weight, ends, bias_EN=bias, transposed=True)

    check(partial(of, partial(grouped_linear, with_triton=True)), partial(of, reference), x, weight, bias)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_grouped_linear_of_tokens_not_sorted(device: str, dtype: torch.dtype, transposed: bool) -> None:
    """Each token goes to two of four experts; one of them is not here."""
    order = by_expert(torch.rand(37, 4, device=device).topk(2).indices, 3)
    x = randn(37, 40, dtype=dtype, device=device)
    weight = randn(3, *((40, 70) if transposed else (70, 40)), dtype=dtype, device=device)

    def of(function: Callable[..., Tensor], x: Tensor, weight: Tensor) -> Tensor:
        return function(x, weight, order.ends, transposed=transposed, order=order)

    check(partial(of, partial(grouped_linear, with_triton=True)), partial(of, reference), x, weight)


def test_grouped_linear_of_rows_and_matrices_that_are_not_dense(device: str) -> None:
    x = randn(12, 2, 40, dtype=torch.float32, device=device)[:, 1]
    weight = randn(3, 2, 24, 40, dtype=torch.float32, device=device)[:, 0]
    check(partial(grouped_linear, with_triton=True), reference, x, weight, offsets([5, 0, 7], device))


def test_grouped_linear_of_no_tokens(device: str) -> None:
    x, weight = torch.ones(0, 20, device=device), torch.ones(3, 8, 20, device=device)
    check(partial(grouped_linear, with_triton=True), reference, x, weight, offsets([0, 0, 0], device))


def test_grouped_linear_leaves_out_what_is_frozen(device: str) -> None:
    ends = offsets([3, 4], device)
    x, weight = torch.randn(7, 5, device=device), torch.randn(2, 6, 5, device=device)
    bias = torch.randn(2, 6, device=device, requires_grad=True)
    (dbias,) = torch.autograd.grad(grouped_linear(x, weight, ends, bias_EN=bias, with_triton=True).sum(), bias)
    assert torch.equal(dbias, torch.tensor([[3.0], [4.0]], device=device).expand(2, 6))


def test_grouped_linear_gives_the_same_bits_again(device: str) -> None:
    x, weight = torch.randn(70, 33, device=device), torch.randn(3, 20, 33, device=device, requires_grad=True)
    ends = offsets([30, 0, 39], device)
    with poisoned():
        first, second = (
            torch.autograd.grad(grouped_linear(x, weight, ends, with_triton=True).sum(), weight)[0] for _ in range(2)
        )
    assert torch.equal(first, second)


def test_grouped_linear_equals_torchs(device: str) -> None:
    """torch leaves rows past the last offset unwritten, and wants rows of 16 bytes."""
    x, weight = torch.randn(9, 16, device=device), torch.randn(3, 24, 16, device=device)
    ends = offsets([4, 0, 5], device)
    torchs = torch.nn.functional.grouped_mm(x.bfloat16(), weight.bfloat16().transpose(1, 2), offs=ends)
    torch.testing.assert_close(grouped_linear(x, weight, ends, with_triton=True), torchs.float(), atol=0.1, rtol=0.02)


def test_grouped_linear_refuses_what_does_not_fit(device: str) -> None:
    x, weight, ends = torch.ones(4, 8), torch.ones(2, 3, 8), offsets([1, 3], "cpu")
    with pytest.raises(ValueError, match=r"\[E, N, K\]"):
        grouped_linear(x, weight.transpose(1, 2), ends)
    with pytest.raises(ValueError, match=r"\[E\]"):
        grouped_linear(x, weight, ends[:1])
    with pytest.raises(ValueError, match="int32"):
        grouped_linear(x, weight, ends.long())
    with pytest.raises(ValueError, match="one dtype"):
        grouped_linear(x, weight.bfloat16(), ends)
    with pytest.raises(ValueError, match="4 tokens, and 2 experts of each make not 6"):
        grouped_linear(x, weight, ends, order=by_expert(torch.zeros(3, 2, dtype=torch.int64), 2))


def test_grouped_linear_takes_the_reference_on_a_cpu() -> None:
    x, weight = torch.randn(5, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    y = grouped_linear(x, weight, offsets([2, 2], "cpu"))
    assert torch.equal(y[:2], x[:2] @ weight[0].T)
    assert torch.equal(y[2:], torch.cat([x[2:4] @ weight[1].T, torch.zeros(1, 4, dtype=torch.float64)]))
