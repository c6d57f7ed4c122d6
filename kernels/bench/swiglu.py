"""SwiGLU: reads gate and up, writes y; backward reads gate, up and dy, writes dgate and dup."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from runner.kernels.bench.harness.case import Case, Inputs, Peer, Shape, liger, normal
from runner.kernels.ops import swiglu as op


def make(shape: Shape, dtype: torch.dtype, device: torch.device) -> Inputs:
    """gate and up [R, F]."""
    gate, up = (normal(shape["R"], shape["F"], like=(dtype, device)) for _ in range(2))
    return gate, up


def work(shape: Shape, itemsize: int) -> Mapping[str, float]:
    """Bytes."""
    rows = shape["R"] * shape["F"] * itemsize
    return {"forward": 3 * rows, "backward": 5 * rows}


CASES = (
    Case(
        name="llama-8b",
        shape={"R": 16384, "F": 14336},
        tiny={"R": 3, "F": 65},
        make=make,
        own=op.swiglu,
        reference=op.reference,
        compiled=op.reference,
        peers=(Peer(name="torch", run=op.reference), liger("LigerSiLUMulFunction")),
        work=work,
        bound="memory",
    ),
)
