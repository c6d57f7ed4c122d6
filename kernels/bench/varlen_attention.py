"""Attention of packed documents of one length, which torch's backends can take as a batch."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from runner.kernels.bench.harness.case import Case, Inputs, Peer, Shape, normal
from runner.kernels.ops import varlen_attention as op

BACKENDS = {
    "sdpa-cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa-flash": SDPBackend.FLASH_ATTENTION,
    "sdpa-efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def make(shape: Shape, dtype: torch.dtype, device: torch.device) -> Inputs:
    """q [T, H, D], k and v [T, G, D], and where the documents begin."""
    tokens, like = shape["documents"] * shape["L"], (dtype, device)
    q, k, v = (normal(tokens, shape[heads], shape["D"], like=like) for heads in "HGG")
    return q, k, v, torch.arange(shape["documents"] + 1, device=device, dtype=torch.int32) * shape["L"]


def work(shape: Shape, _: int) -> Mapping[str, float]:
    """Operations of the pairs that are not masked: two products forward, five backward."""
    pairs = shape["documents"] * shape["L"] ** 2 / 2
    product = 2.0 * pairs * shape["H"] * shape["D"]
    return {"forward": 2 * product, "backward": 5 * product}


def own(q_THD: Tensor, k_TGD: Tensor, v_TGD: Tensor, starts: Tensor) -> Tensor:
    """Ours."""
    return op.varlen_attention(q_THD, k_TGD, v_TGD, starts, max_seqlen=longest(q_THD, starts))


def longest(q_THD: Tensor, starts: Tensor) -> int:
    """All documents are as long."""
    return q_THD.shape[0] // (starts.numel() - 1)


def as_batch(q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> Inputs:
    """[documents, heads, L, D] over the same memory."""
    return tuple(x.unflatten(0, (starts.numel() - 1, -1)).transpose(1, 2) for x in (q, k, v))


def sdpa(q: Tensor, k: Tensor, v: Tensor, *, backend: SDPBackend | None) -> Tensor:
    """One backend of torch, or the one it chooses."""
    if backend is None:
        y = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    elif backend == SDPBackend.EFFICIENT_ATTENTION:  # which knows no heads that share keys
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        with sdpa_kernel(backend):
            y = scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        with sdpa_kernel(backend):
            y = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return y.transpose(1, 2).flatten(0, 1)


def flash_attn() -> Peer:
    """The package of that name."""
    if importlib.util.find_spec("flash_attn") is None:
        return Peer(name="flash-attn", run=own, missing="flash-attn is not installed")
    function = importlib.import_module("flash_attn").flash_attn_varlen_func

    def called(q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> Tensor:
        length = longest(q, starts)
        y: Tensor = function(q, k, v, starts, starts, length, length, causal=True)
        return y

    return Peer(name="flash-attn", run=called)


def case(name: str, **shape: int) -> Case:
    """Causal."""
    peers = [
        Peer(name=which, run=partial(sdpa, backend=backend), prepare=as_batch) for which, backend in BACKENDS.items()
    ]
    return Case(
        name=name,
        shape=shape,
        tiny={"documents": 2, "L": 9, "H": 4, "G": 2, "D": 16},
        make=make,
        own=own,
        reference=op.reference,
        peers=(*peers, Peer(name="sdpa", run=partial(sdpa, backend=None), prepare=as_batch), flash_attn()),
        work=work,
        bound="matrix",
        target=0.9,
    )


CASES = (
    case("llama-8b-2k", documents=8, L=2048, H=32, G=8, D=128),
    case("llama-8b-8k", documents=1, L=8192, H=32, G=8, D=128),
    case("llama-1b-2k", documents=8, L=2048, H=32, G=8, D=64),
)
