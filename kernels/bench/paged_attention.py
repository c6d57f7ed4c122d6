"""Decode attention over pages: reads every key and value once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from runner.kernels.bench.harness.case import Case, Inputs, Peer, Shape, normal
from runner.kernels.bench.varlen_attention import BACKENDS
from runner.kernels.ops import paged_attention as op


def make(shape: Shape, dtype: torch.dtype, device: torch.device) -> Inputs:
    """q [B, H, D], pages of S tokens in any order, table and lengths of sequences that are all as long."""
    like, pages = (dtype, device), shape["L"] // shape["S"]
    q = normal(shape["B"], shape["H"], shape["D"], like=like, grad=False)
    total = shape["B"] * pages
    k, v = (normal(total, shape["S"], shape["G"], shape["D"], like=like, grad=False) for _ in range(2))
    table = torch.randperm(total, device=device).to(torch.int32).view(shape["B"], pages)
    return q, k, v, table, torch.full((shape["B"],), shape["L"], device=device, dtype=torch.int32)


def work(shape: Shape, itemsize: int) -> Mapping[str, float]:
    """Bytes."""
    return {"forward": 2.0 * shape["B"] * shape["L"] * shape["G"] * shape["D"] * itemsize}


def gathered(q: Tensor, k: Tensor, v: Tensor, table: Tensor, _: Tensor) -> Inputs:
    """The same keys and values as one cache [B, G, L, D], which torch's attention wants."""
    return q[:, :, None], *(x[table.long()].flatten(1, 2).transpose(1, 2).contiguous() for x in (k, v))


def sdpa(q: Tensor, k: Tensor, v: Tensor, *, backend: SDPBackend | None) -> Tensor:
    """One backend of torch, or the one it chooses."""
    if backend is None:
        return scaled_dot_product_attention(q, k, v, enable_gqa=True)[:, :, 0]
    with sdpa_kernel(backend):
        return scaled_dot_product_attention(q, k, v, enable_gqa=True)[:, :, 0]


def case(name: str, **shape: int) -> Case:
    """Against caches that are in order already, which a server has not."""
    peers = [
        Peer(name=which, run=partial(sdpa, backend=backend), prepare=gathered) for which, backend in BACKENDS.items()
    ]
    return Case(
        name=name,
        shape=shape,
        tiny={"B": 2, "H": 4, "G": 2, "D": 16, "S": 4, "L": 12},
        make=make,
        own=op.paged_attention,
        reference=op.reference,
        peers=(*peers, Peer(name="sdpa", run=partial(sdpa, backend=None), prepare=gathered)),
        work=work,
        bound="memory",
        target=0.9,
        gradients=False,
    )


CASES = (
    case("llama-8b-batch-64", B=64, H=32, G=8, D=128, S=16, L=4096),
    case("llama-8b-one-long", B=1, H=32, G=8, D=128, S=16, L=131072),
)
