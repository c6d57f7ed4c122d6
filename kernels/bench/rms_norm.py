"""RMSNorm: reads x, writes y; backward reads x and dy, writes dx."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from runner.kernels.bench.harness.case import Case, Inputs, Peer, Shape, liger, normal
from runner.kernels.ops import rms_norm as op

EPS = 1e-6


def make(shape: Shape, dtype: torch.dtype, device: torch.device) -> Inputs:
    """x [R, D] and a weight [D]."""
    like = (dtype, device)
    return normal(shape["R"], shape["D"], like=like), normal(shape["D"], like=like, scale=0.1, shift=1.0)


def work(shape: Shape, itemsize: int) -> Mapping[str, float]:
    """Bytes."""
    rows = shape["R"] * shape["D"] * itemsize
    return {"forward": 2 * rows, "backward": 3 * rows}


def torchs(x: Tensor, weight_D: Tensor) -> Tensor:
    """torch's own."""
    return torch.nn.functional.rms_norm(x, weight_D.shape, weight_D, EPS)


def case(name: str, **shape: int) -> Case:
    """At one shape."""
    return Case(
        name=name,
        shape=shape,
        tiny={"R": 3, "D": 64},
        make=make,
        own=op.rms_norm,
        reference=op.reference,
        compiled=op.reference,
        peers=(
            Peer(name="torch", run=torchs),
            Peer(name="eager", run=op.reference),
            liger("LigerRMSNormFunction", EPS, 0.0, "llama", True),
        ),
        work=work,
        bound="memory",
    )


CASES = (case("llama-8b", R=32768, D=4096), case("qwen3-0.6b", R=65536, D=1024))
