"""Cross-entropy of hidden @ weight^T: one product forward, two backward, one of them not where the head is frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from runner.kernels.bench.cross_entropy import IGNORED, torchs
from runner.kernels.bench.harness.case import Case, Inputs, Peer, Shape, liger, normal
from runner.kernels.ops import linear_cross_entropy as op


def make(shape: Shape, dtype: torch.dtype, device: torch.device, *, frozen: bool) -> Inputs:
    """Hidden states [N, H], a head [V, H], targets [N]."""
    rows, features, entries = (shape[name] for name in "NHV")
    weight = normal(entries, features, like=(dtype, device), grad=not frozen, scale=features**-0.5)
    targets = torch.randint(entries, (rows,), device=device)
    targets[::8] = IGNORED
    return normal(rows, features, like=(dtype, device)), weight, targets


def work(shape: Shape, _: int, *, frozen: bool) -> Mapping[str, float]:
    """Operations."""
    product = 2.0 * shape["N"] * shape["H"] * shape["V"]
    return {"forward": product, "backward": product if frozen else 2 * product}


def whole(hidden: Tensor, weight_VH: Tensor, targets: Tensor) -> Tensor:
    """All logits at once, as transformers has it."""
    return torchs(hidden @ weight_VH.T, targets, softcap=None)


def case(name: str, *, frozen: bool, **shape: int) -> Case:
    """Ours and Liger's know the gradients when forward ends, so that only both passes together can be compared."""
    made: Callable[..., Inputs] = partial(make, frozen=frozen)
    return Case(
        name=name,
        shape=shape,
        tiny={"N": 9, "H": 16, "V": 33},
        make=made,
        own=op.linear_cross_entropy,
        reference=op.reference,
        compiled=whole,
        peers=(Peer(name="torch", run=whole), liger_chunks()),
        work=partial(work, frozen=frozen),
        bound="matrix",
        judged=("both",),
    )


def liger_chunks() -> Peer:
    """Liger's, whose first result is the loss."""
    found = liger("LigerFusedLinearCrossEntropyFunction", None, None, IGNORED)

    def called(*inputs: Tensor) -> Tensor:
        result = found.run(*inputs)
        loss: Tensor = result[0] if isinstance(result, tuple) else result
        return loss

    return Peer(name="liger", run=called, missing=found.missing)


CASES = (
    case("llama-3-8b", frozen=False, N=8192, H=4096, V=128256),
    case("llama-3-8b-frozen", frozen=True, N=8192, H=4096, V=128256),
)
