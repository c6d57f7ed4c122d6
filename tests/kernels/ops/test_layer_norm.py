"""LayerNorm, with and without a bias."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from runner.kernels.ops import layer_norm as module
from runner.kernels.ops.layer_norm import layer_norm, reference
from tests.kernels.criterion import DTYPES, check, randn

SHAPES = [(1, 1), (63, 63), (5, 1000), (3, 1280), (300, 8), (2, 4097)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layer_norm(device: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    x = randn(*shape, dtype=dtype, device=device)
    weight, bias = (randn(shape[-1], dtype=dtype, device=device) for _ in range(2))
    check(partial(layer_norm, with_triton=True), reference, x, weight, bias)


def test_layer_norm_without_bias_in_a_batch(device: str) -> None:
    x, weight = randn(2, 3, 65, dtype=torch.float32, device=device), randn(65, dtype=torch.float32, device=device)
    check(partial(layer_norm, eps=1e-3, with_triton=True), partial(reference, eps=1e-3), x, weight)


def test_layer_norm_far_from_zero(device: str) -> None:
    """Where the variance as mean(x^2) - mean(x)^2 would be lost: errors of 1e-1.

    The mean of 1,000 is rounded to 3e-5 by torch too, sometimes by luck to less.
    """
    x, weight = 1000 + randn(7, 100, dtype=torch.float32, device=device), torch.ones(100, device=device)
    check(partial(layer_norm, with_triton=True), reference, x, weight, times=50)


@pytest.mark.parametrize("features", [33, 4100])
def test_layer_norm_of_every_second_row_and_of_more_rows_than_programs(
    device: str, features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROGRAMS", 3)
    rows = 11 if features > 1000 else 331
    x = randn(rows, 2, features, dtype=torch.float32, device=device)[:, 1]
    weight, bias = (randn(features, dtype=torch.float32, device=device) for _ in range(2))
    check(partial(layer_norm, with_triton=True), reference, x, weight, bias)


def test_layer_norm_takes_torch_on_a_cpu_as_torch_has_it() -> None:
    x, weight, bias = (torch.randn(shape, dtype=torch.float64) for shape in ((3, 5), (5,), (5,)))
    torch.testing.assert_close(layer_norm(x, weight, bias), torch.nn.functional.layer_norm(x, (5,), weight, bias))
