"""Cross-entropy: reads the logits; backward reads them again and writes their gradient."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from runner.kernels.bench.harness.case import Case, Inputs, Peer, Shape, liger, normal
from runner.kernels.ops import cross_entropy as op

IGNORED = -100


def make(shape: Shape, dtype: torch.dtype, device: torch.device) -> Inputs:
    """Logits [N, V] and targets [N], an eighth of them ignored."""
    targets = torch.randint(shape["V"], (shape["N"],), device=device)
    targets[::8] = IGNORED
    return normal(shape["N"], shape["V"], like=(dtype, device), scale=3.0), targets


def work(shape: Shape, itemsize: int) -> Mapping[str, float]:
    """Bytes."""
    logits = shape["N"] * shape["V"] * itemsize
    return {"forward": logits, "backward": 2 * logits}


def torchs(logits: Tensor, targets: Tensor, *, softcap: float | None) -> Tensor:
    """What models of transformers do: in fp32."""
    logits = logits.float()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED)


def case(name: str, *, softcap: float | None = None, **shape: int) -> Case:
    """Liger writes the gradient in forward, over the logits, so that only both passes together can be compared."""
    run = partial(torchs, softcap=softcap)
    return Case(
        name=name,
        shape=shape,
        tiny={"N": 9, "V": 33},
        make=make,
        own=partial(op.cross_entropy, softcap=softcap),
        reference=partial(op.reference, softcap=softcap),
        compiled=run,
        peers=(
            Peer(name="torch", run=run),
            liger("LigerCrossEntropyFunction", None, IGNORED, 0.0, 0.0, "mean", softcap),
        ),
        work=work,
        bound="memory",
        judged=("both",),
    )


CASES = (case("llama-3", N=8192, V=128256), case("gemma-2", softcap=30.0, N=4096, V=256000))
