"""LayerNorm: reads x, writes y; backward reads x and dy, writes dx."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from runner.kernels.bench.harness.case import Case, Inputs, Peer, Shape, liger, normal
from runner.kernels.ops import layer_norm as op

EPS = 1e-5


def make(shape: Shape, dtype: torch.dtype, device: torch.device) -> Inputs:
    """x [R, D], a weight and a bias [D]."""
    like, features = (dtype, device), shape["D"]
    weight, bias = normal(features, like=like, scale=0.1, shift=1.0), normal(features, like=like)
    return normal(shape["R"], features, like=like), weight, bias


def work(shape: Shape, itemsize: int) -> Mapping[str, float]:
    """Bytes."""
    rows = shape["R"] * shape["D"] * itemsize
    return {"forward": 2 * rows, "backward": 3 * rows}


def torchs(x: Tensor, weight_D: Tensor, bias_D: Tensor) -> Tensor:
    """torch's own."""
    return torch.nn.functional.layer_norm(x, weight_D.shape, weight_D, bias_D, EPS)


CASES = (
    Case(
        name="whisper-large",
        shape={"R": 48000, "D": 1280},
        tiny={"R": 3, "D": 64},
        make=make,
        own=op.layer_norm,
        reference=op.reference,
        compiled=op.reference,
        peers=(Peer(name="torch", run=torchs), liger("LigerLayerNormFunction", EPS)),
        work=work,
        bound="memory",
    ),
)
