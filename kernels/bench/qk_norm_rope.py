"""RMSNorm of q's and k's heads, then RoPE: reads q and k, writes both; backward reads them and their gradients too."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from runner.kernels.bench import rope
from runner.kernels.bench.harness.case import Case, Inputs, Peer, Shape, liger, normal
from runner.kernels.ops import qk_norm_rope as op

EPS = 1e-6


def make(shape: Shape, dtype: torch.dtype, device: torch.device) -> Inputs:
    """As for RoPE, with weights [D] of both norms after q and k."""
    q, k, *tables = rope.make(shape, dtype, device)
    weights = (normal(shape["D"], like=(dtype, device), scale=0.1, shift=1.0) for _ in range(2))
    return q, k, *weights, *tables


def work(shape: Shape, itemsize: int) -> Mapping[str, float]:
    """Bytes."""
    rows = shape["T"] * (shape["H"] + shape["G"]) * shape["D"] * itemsize
    return {"forward": 2 * rows, "backward": 3 * rows}


def prepared(q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, *tables: Tensor) -> Inputs:
    """As modules of transformers and Liger get them: norms see [1, T, heads, D]."""
    _, _, cos, sin = rope.as_transformers(q, k, *tables)
    return q[None], k[None], q_weight, k_weight, cos, sin


def apart(q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """torch's norm, then RoPE as in transformers."""
    q, k = (torch.nn.functional.rms_norm(x, w.shape, w, EPS) for x, w in ((q, q_weight), (k, k_weight)))
    q, k = rope.transformers_way(q.transpose(1, 2), k.transpose(1, 2), cos, sin)
    return q[0].transpose(0, 1), k[0].transpose(0, 1)


def of_liger() -> Peer:
    """Liger's norm, then its RoPE."""
    norm, turn = liger("LigerRMSNormFunction", EPS, 0.0, "llama", True), liger("LigerRopeFunction")

    def called(
        q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, ...]:
        q, k = norm.run(q, q_weight), norm.run(k, k_weight)
        return tuple(x[0].transpose(0, 1) for x in turn.run(q.transpose(1, 2), k.transpose(1, 2), cos, sin))

    return Peer(name="liger", run=called, prepare=prepared, missing=norm.missing or turn.missing)


CASES = (
    Case(
        name="qwen3-8b",
        shape={"T": 16384, "H": 32, "G": 8, "D": 128},
        tiny={"T": 5, "H": 4, "G": 2, "D": 32},
        make=make,
        own=op.qk_norm_rope,
        reference=op.reference,
        compiled=op.reference,
        peers=(Peer(name="torch", run=apart, prepare=prepared), of_liger()),
        work=work,
        bound="memory",
    ),
)
