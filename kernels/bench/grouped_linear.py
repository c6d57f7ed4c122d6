"""Experts' linear layer: one product forward, two backward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from runner.kernels.bench.harness.case import Case, Inputs, Peer, Shape, normal
from runner.kernels.ops import grouped_linear as op


def make(shape: Shape, dtype: torch.dtype, device: torch.device) -> Inputs:
    """Tokens [T, K] sorted by expert, matrices [E, N, K], and where each expert's tokens end: some have few."""
    tokens, experts, outputs, features = (shape[name] for name in "TENK")
    weight = normal(experts, outputs, features, like=(dtype, device), scale=features**-0.5)
    crowds = torch.multinomial(torch.rand(experts, device=device) + 0.1, tokens, replacement=True)
    ends = torch.bincount(crowds, minlength=experts).cumsum(0).to(torch.int32)
    return normal(tokens, features, like=(dtype, device)), weight, ends


def work(shape: Shape, _: int) -> Mapping[str, float]:
    """Operations."""
    product = 2.0 * shape["T"] * shape["N"] * shape["K"]
    return {"forward": product, "backward": 2 * product}


def grouped_mm(x_TK: Tensor, weight_ENK: Tensor, ends_E: Tensor) -> Tensor:
    """torch's, under either of its names."""
    function: Any = getattr(torch.nn.functional, "grouped_mm", None) or torch._grouped_mm
    y: Tensor = function(x_TK, weight_ENK.transpose(1, 2), offs=ends_E)
    return y


def case(name: str, **shape: int) -> Case:
    """Of a model with T / experts-of-a-token tokens."""
    return Case(
        name=name,
        shape=shape,
        tiny={"T": 24, "E": 3, "N": 16, "K": 32},
        make=make,
        own=op.grouped_linear,
        reference=op.reference,
        peers=(Peer(name="torch", run=grouped_mm), Peer(name="eager", run=op.reference)),
        work=work,
        bound="matrix",
    )


CASES = (case("qwen3-30b-a3b", T=65536, E=128, N=1536, K=2048), case("mixtral", T=16384, E=8, N=14336, K=4096))
