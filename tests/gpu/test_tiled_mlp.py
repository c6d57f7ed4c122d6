"""Tiled MLPs on a GPU: the peak is that of a tile, and dropout draws as it did in forward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from runner.kernels.tiled_mlp import in_tiles

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
ROWS, FEATURES, WIDE = 16384, 512, 4096


def peak(mlp: nn.Module, x: torch.Tensor, tile_rows: int) -> int:
    in_tiles(mlp, x, tile_rows=tile_rows).sum().backward()  # gradients have their memory from here on
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    in_tiles(mlp, x, tile_rows=tile_rows).sum().backward()
    return torch.cuda.max_memory_allocated() - before


def test_the_peak_is_that_of_a_tile() -> None:
    mlp = nn.Sequential(nn.Linear(FEATURES, WIDE), nn.GELU(), nn.Linear(WIDE, FEATURES)).to("cuda", torch.bfloat16)
    x = torch.randn(1, ROWS, FEATURES, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    whole = ROWS * WIDE * 2  # bytes between the projections
    assert peak(mlp, x, ROWS) > 2 * whole
    assert peak(mlp, x, ROWS // 16) < 1.0 * whole


def test_dropout_is_that_of_forward() -> None:
    x = torch.ones(1000, 64, device="cuda", requires_grad=True)
    y = in_tiles(nn.Dropout(0.5), x, tile_rows=300)
    before = torch.cuda.get_rng_state()
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], y)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert 0 < (y == 0).sum() < y.numel()
