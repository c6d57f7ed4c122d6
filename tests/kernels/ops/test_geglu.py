"""GEGLU, exact and by tanh."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from runner.kernels.ops.geglu import geglu, reference
from tests.kernels.criterion import DTYPES, check, randn

# the sigmoid of -88 passes infinity on its way to 0: one value in two million drawn here is as large
OVERFLOW = pytest.mark.filterwarnings("ignore:overflow encountered in exp")


@OVERFLOW
@pytest.mark.parametrize("tanh", [False, True], ids=["exact", "tanh"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(63, 1), (1, 63), (5, 1000), (2, 3, 1280), (2, 4100)], ids=str)
def test_geglu(device: str, shape: tuple[int, ...], dtype: torch.dtype, tanh: bool) -> None:
    gate, up = (2 * randn(*shape, dtype=dtype, device=device) for _ in range(2))
    check(partial(geglu, tanh=tanh, with_triton=True), partial(reference, tanh=tanh), gate, up)


def test_geglu_of_two_halves_of_one_projection(device: str) -> None:
    both = randn(9, 2 * 65, dtype=torch.float32, device=device)
    check(lambda x: geglu(*x.chunk(2, dim=-1), with_triton=True), lambda x: reference(*x.chunk(2, dim=-1)), both)


@pytest.mark.parametrize("tanh", [False, True], ids=["exact", "tanh"])
@OVERFLOW
def test_geglu_of_extremes(device: str, tanh: bool) -> None:
    gate = torch.tensor([[-1e4, -100.0, 0.0, 100.0, 1e4]], device=device)
    check(partial(geglu, tanh=tanh, with_triton=True), partial(reference, tanh=tanh), gate, torch.ones_like(gate))
