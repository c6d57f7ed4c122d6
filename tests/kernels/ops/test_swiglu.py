"""SwiGLU."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from runner.kernels.ops.swiglu import reference, swiglu
from tests.kernels.criterion import DTYPES, check, randn


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(63, 1), (1, 63), (5, 1000), (2, 3, 1280), (2, 4100), (0, 8)], ids=str)
def test_swiglu(device: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    gate, up = (3 * randn(*shape, dtype=dtype, device=device) for _ in range(2))
    check(partial(swiglu, with_triton=True), reference, gate, up)


def test_swiglu_of_two_halves_of_one_projection(device: str) -> None:
    both = randn(9, 2 * 65, dtype=torch.float32, device=device)
    check(lambda x: swiglu(*x.chunk(2, dim=-1), with_triton=True), lambda x: reference(*x.chunk(2, dim=-1)), both)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # infinity is meant
def test_swiglu_of_extremes(device: str) -> None:
    gate = torch.tensor([[-1e4, -100.0, 0.0, 100.0, 1e4]], device=device)
    check(partial(swiglu, with_triton=True), reference, gate, torch.ones_like(gate))


def test_swiglu_refuses_what_does_not_match() -> None:
    with pytest.raises(ValueError, match="must be alike"):
        swiglu(torch.ones(2, 3), torch.ones(2, 4))
