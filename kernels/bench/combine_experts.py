"""What a token's experts say, together: reads each row once, writes one a token; backward reads and writes them all."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from runner.kernels.bench.harness.case import Case, Inputs, Peer, Shape, normal
from runner.kernels.ops import combine_experts as op
from runner.kernels.parts.expert_order import by_expert


def make(shape: Shape, dtype: torch.dtype, device: torch.device) -> Inputs:
    """x [R * J, H], weights [R, J] and an order in which tokens went to experts of their own choice."""
    rows, each, features, experts = (shape[name] for name in "RJHE")
    weights = torch.rand(rows, each, device=device).softmax(1).to(dtype).requires_grad_()
    order = by_expert(torch.rand(rows, experts, device=device).topk(each, dim=1).indices, experts)
    return normal(rows * each, features, like=(dtype, device)), weights, order


def work(shape: Shape, itemsize: int) -> Mapping[str, float]:
    """Bytes."""
    one = shape["R"] * shape["H"] * itemsize
    return {"forward": (shape["J"] + 1.0) * one, "backward": (2.0 * shape["J"] + 1) * one}


CASES = (
    Case(
        name="qwen3-30b-a3b",
        shape={"R": 16384, "J": 8, "H": 2048, "E": 128},
        tiny={"R": 5, "J": 2, "H": 16, "E": 4},
        make=make,
        own=op.combine_experts,
        reference=op.reference,
        compiled=op.reference,
        peers=(Peer(name="torch", run=op.reference),),
        work=work,
        bound="memory",
    ),
)
