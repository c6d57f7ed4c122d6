"""RMSNorm, Llama's and Gemma's."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from runner.kernels.ops import rms_norm as module
from runner.kernels.ops.rms_norm import reference, rms_norm
from tests.kernels.criterion import DTYPES, check, poisoned, randn

SHAPES = [(1, 63), (63, 63), (5, 1000), (3, 1280), (300, 8), (2, 4097)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rms_norm(device: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, weight = randn(*shape, dtype=dtype, device=device), randn(shape[-1], dtype=dtype, device=device)
    check(partial(rms_norm, with_triton=True), reference, x, weight)


def test_rms_norm_of_one_feature(device: str) -> None:
    """With a small eps its gradient is 0 but for roundings, and nothing to compare."""
    x, weight = torch.randn(5, 1, device=device), torch.randn(1, device=device)
    check(partial(rms_norm, eps=0.5, with_triton=True), partial(reference, eps=0.5), x, weight)


def test_rms_norm_of_gemma_in_a_batch(device: str) -> None:
    x, weight = randn(2, 3, 65, dtype=torch.float32, device=device), randn(65, dtype=torch.float32, device=device)
    check(
        partial(rms_norm, offset=1.0, eps=1e-5, with_triton=True), partial(reference, offset=1.0, eps=1e-5), x, weight
    )


@pytest.mark.parametrize("features", [33, 4100])
def test_rms_norm_of_every_second_row_and_of_more_rows_than_programs(
    device: str, features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROGRAMS", 3)
    rows = 11 if features > 1000 else 331
    x, weight = randn(rows, 2, features, dtype=torch.float32, device=device)[:, 1], torch.ones(features, device=device)
    check(partial(rms_norm, with_triton=True), reference, x, weight)


def test_rms_norm_of_columns_that_do_not_lie_side_by_side(device: str) -> None:
    x, weight = randn(65, 7, dtype=torch.float32, device=device).T, torch.ones(65, device=device)
    check(partial(rms_norm, with_triton=True), reference, x, weight)


def test_rms_norm_of_no_rows(device: str) -> None:
    x, weight = torch.ones(0, 65, device=device), torch.ones(65, device=device)
    check(partial(rms_norm, with_triton=True), reference, x, weight)


def test_rms_norm_gives_the_same_bits_again(device: str) -> None:
    x, weight = randn(300, 100, dtype=torch.float32, device=device), torch.ones(100, device=device, requires_grad=True)
    with poisoned():
        first, second = (torch.autograd.grad(rms_norm(x, weight, with_triton=True).sum(), weight)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_rms_norm_takes_the_reference_on_a_cpu() -> None:
    x, weight = torch.randn(3, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    assert torch.equal(rms_norm(x, weight), reference(x, weight))
