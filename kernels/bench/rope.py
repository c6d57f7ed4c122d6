"""RoPE: reads q and k, writes them turned; backward the same of their gradients. The tables are small."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from runner.kernels.bench.harness.case import Case, Inputs, Peer, Shape, liger, normal
from runner.kernels.ops import rope as op


def make(shape: Shape, dtype: torch.dtype, device: torch.device) -> Inputs:
    """q [T, H, D], k [T, G, D], tables [T, D / 2] in fp32, positions [T] of one document."""
    tokens, features = shape["T"], shape["D"]
    q, k = (normal(tokens, shape[heads], features, like=(dtype, device)) for heads in "HG")
    rates = 10_000.0 ** (-torch.arange(features // 2, device=device) / (features // 2))
    positions = torch.arange(tokens, device=device)
    turns = torch.outer(positions, rates)
    return q, k, turns.cos(), turns.sin(), positions


def work(shape: Shape, itemsize: int) -> Mapping[str, float]:
    """Bytes."""
    rows = shape["T"] * (shape["H"] + shape["G"]) * shape["D"] * itemsize
    return {"forward": 2 * rows, "backward": 2 * rows}


def as_transformers(q_THD: Tensor, k_TGD: Tensor, cos_PC: Tensor, sin_PC: Tensor, positions_T: Tensor) -> Inputs:
    """q and k [1, heads, T, D] over the same memory, tables [1, T, D] in their dtype."""
    q, k = (x.transpose(0, 1)[None] for x in (q_THD, k_TGD))
    cos, sin = (torch.cat([table, table], -1)[positions_T][None].to(q.dtype) for table in (cos_PC, sin_PC))
    return q, k, cos, sin


def transformers_way(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """What models of transformers do."""
    q_turned, k_turned = (x * cos[:, None] + _rotated(x) * sin[:, None] for x in (q, k))
    return q_turned, k_turned


def _rotated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


def back(run: Peer) -> Peer:
    """A peer whose results are [T, heads, D] again."""

    def called(*inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(x[0].transpose(0, 1) for x in run.run(*inputs))

    return Peer(name=run.name, run=called, prepare=as_transformers, missing=run.missing)


CASES = (
    Case(
        name="llama-8b",
        shape={"T": 16384, "H": 32, "G": 8, "D": 128},
        tiny={"T": 5, "H": 4, "G": 2, "D": 32},
        make=make,
        own=op.rope,
        reference=op.reference,
        compiled=op.reference,
        peers=(back(Peer(name="torch", run=transformers_way)), back(liger("LigerRopeFunction"))),
        work=work,
        bound="memory",
    ),
)
