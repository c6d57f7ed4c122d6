"""Norm of the heads and RoPE in one pass."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.kernels.ops import qk_norm_rope as module
from runner.kernels.ops.qk_norm_rope import qk_norm_rope, reference
from tests.kernels.criterion import DTYPES, check, packed_positions, randn, rotary_tables


def compare(q: Tensor, k: Tensor, pairs: int, lengths: list[int], **options: float) -> None:
    positions = packed_positions(lengths, str(q.device))
    tables = (*rotary_tables(70, pairs, str(q.device)), positions)
    weights = [torch.randn(q.shape[-1], device=q.device).to(q.dtype) for _ in range(2)]

    def called(function: Any, *tensors: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
        y: tuple[Tensor, Tensor] = function(*tensors, *tables, **options, **more)
        return y

    check(partial(called, qk_norm_rope, with_triton=True), partial(called, reference), q, k, *weights)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("heads", "features", "pairs"),
    [((3, 1), 64, 32), ((5, 5), 63, 13), ((14, 2), 128, 64), ((2, 1), 256, 128)],
    ids=str,
)
def test_qk_norm_rope(device: str, heads: tuple[int, int], features: int, pairs: int, dtype: torch.dtype) -> None:
    q, k = (randn(23, count, features, dtype=dtype, device=device) for count in heads)
    compare(q, k, pairs, [5, 0, 1, 17])


def test_qk_norm_rope_of_gemma_heads_before_tokens(device: str) -> None:
    q, k = (randn(count, 63, 32, dtype=torch.float32, device=device).transpose(0, 1) for count in (3, 1))
    compare(q, k, 8, [63, 0], offset=1.0, eps=1e-3)


def test_qk_norm_rope_of_more_rows_than_programs(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRAMS", 2)
    q, k = (randn(70, count, 64, dtype=torch.float32, device=device) for count in (4, 1))
    compare(q, k, 32, [70])


def test_qk_norm_rope_of_no_tokens(device: str) -> None:
    q = torch.ones(0, 2, 8, device=device, requires_grad=True)
    weight = torch.ones(8, device=device, requires_grad=True)
    tables = (*rotary_tables(3, 4, device), torch.zeros(0, dtype=torch.int64, device=device))
    y, _ = qk_norm_rope(q, q, weight, weight, *tables, with_triton=True)
    y.sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.zeros(8, device=device))
