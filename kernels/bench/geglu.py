"""GEGLU: reads gate and up, writes y; backward reads gate, up and dy, writes dgate and dup."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch

from runner.kernels.bench.harness.case import Case, Inputs, Peer, Shape, liger, normal
from runner.kernels.ops import geglu as op


def make(shape: Shape, dtype: torch.dtype, device: torch.device) -> Inputs:
    """gate and up [R, F]."""
    gate, up = (normal(shape["R"], shape["F"], like=(dtype, device)) for _ in range(2))
    return gate, up


def work(shape: Shape, itemsize: int) -> Mapping[str, float]:
    """Bytes."""
    rows = shape["R"] * shape["F"] * itemsize
    return {"forward": 3 * rows, "backward": 5 * rows}


def case(name: str, *, tanh: bool) -> Case:
    """Exact, or by tanh as Gemma and Liger have it."""
    reference = partial(op.reference, tanh=tanh)
    peers = (Peer(name="torch", run=reference), *([liger("LigerGELUMulFunction")] if tanh else []))
    return Case(
        name=name,
        shape={"R": 16384, "F": 14336},
        tiny={"R": 3, "F": 65},
        make=make,
        own=partial(op.geglu, tanh=tanh),
        reference=reference,
        compiled=reference,
        peers=peers,
        work=work,
        bound="memory",
    )


CASES = (case("tanh", tanh=True), case("exact", tanh=False))
