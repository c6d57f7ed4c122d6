"""The launches that gated activations share: y = act(gate) * up, element by element, over rows that need not be dense.

Phi's gate and up are the two halves of one projection: their rows lie apart, and are read where they are.
Shapes: R rows, F features of the feed-forward layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from runner.kernels.launch import as_rows, divide_up, launch, power_of_two, warps


def forward(kernel: Any, gate: Tensor, up: Tensor, **options: Any) -> Tensor:
    """`kernel(gate, up, y, gate stride, up stride, features, BLOCK)` for every row and block of columns."""
    gate_RF, up_RF = as_rows(gate), as_rows(up)
    y = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    programs, block = _cut(gate_RF)
    sizes = (gate_RF.stride(0), up_RF.stride(0), gate_RF.shape[1])
    launch(kernel, programs, gate_RF, up_RF, y, *sizes, BLOCK=block, num_warps=warps(block), **options)
    return y


def backward(kernel: Any, gate: Tensor, up: Tensor, dy: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """`kernel(gate, up, dy, dgate, dup, gate stride, up stride, features, BLOCK)`, likewise."""
    gate_RF, up_RF = as_rows(gate), as_rows(up)
    dgate, dup = (torch.empty(gate.shape, dtype=gate.dtype, device=gate.device) for _ in range(2))
    programs, block = _cut(gate_RF)
    tensors = (gate_RF, up_RF, dy.contiguous(), dgate, dup)
    sizes = (gate_RF.stride(0), up_RF.stride(0), gate_RF.shape[1])
    launch(kernel, programs, *tensors, *sizes, BLOCK=block, num_warps=warps(block), **options)
    return dgate, dup


def must_match(gate: Tensor, up: Tensor) -> None:
    """Raises ValueError where the two differ in shape or dtype: kernels would read past the end."""
    if gate.shape != up.shape or gate.dtype != up.dtype:
        raise ValueError(
            f"gate is {tuple(gate.shape)} {gate.dtype}, up is {tuple(up.shape)} {up.dtype}: they must be alike."
        )


def _cut(rows_RF: Tensor) -> tuple[tuple[int, int], int]:
    rows, features = rows_RF.shape
    block = min(power_of_two(features), 2048)
    return (rows, divide_up(features, block)), block
