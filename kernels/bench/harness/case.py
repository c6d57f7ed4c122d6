"""One thing to time: a shape, how its inputs are made, who computes it, and how much work it is at least."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Shape = Mapping[str, int]
Inputs = tuple[Any, ...]
PASSES = ("forward", "backward", "both")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another way to compute the same."""

    name: str
    run: Callable[..., Any]
    prepare: Callable[..., Inputs] | None = None  # the case's inputs as this one wants them, outside of the clock
    missing: str | None = None  # why it cannot be taken
    same: bool = True  # its values are those of the reference but for roundings

    @property
    def is_sdpa(self) -> bool:
        """One of the backends of torch's attention, among which the best is the mark to reach."""
        return self.name.startswith("sdpa")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kernel at one shape and dtype. `own`, `reference` and `compiled` take what `make` gives, by position."""

    name: str
    shape: Shape
    tiny: Shape  # the same at a size for CPUs
    make: Callable[[Shape, torch.dtype, torch.device], Inputs]  # leaves that want a gradient say so themselves
    own: Callable[..., Any]
    reference: Callable[..., Any]
    work: Callable[[Shape, int], Mapping[str, float]]  # of forward and backward, by bytes of an element
    bound: str  # "memory": work is bytes moved at least. "matrix": work is floating-point operations
    peers: tuple[Peer, ...] = ()
    compiled: Callable[..., Any] | None = None  # what torch.compile gets
    dtype: torch.dtype = torch.bfloat16
    target: float = 1.0  # times the speed of the best peer; of the best SDPA backend where there is one
    judged: tuple[str, ...] = PASSES  # the passes that targets count for
    gradients: bool = True

    @property
    def passes(self) -> tuple[str, ...]:
        """Those that there are."""
        return PASSES if self.gradients else ("forward",)

    def amount(self, which: str) -> float:
        """Bytes or operations of a pass."""
        work = self.work(self.shape, self.dtype.itemsize)
        return sum(work.values()) if which == "both" else work[which]


def normal(
    *sizes: int, like: tuple[torch.dtype, torch.device], grad: bool = True, scale: float = 1.0, shift: float = 0.0
) -> Tensor:
    """Random numbers; zeros would be read and multiplied faster than what models hold."""
    dtype, device = like
    x = torch.randn(*sizes, device=device).mul_(scale).add_(shift)
    return x.to(dtype).requires_grad_(grad)


def outputs(result: Any) -> list[Tensor]:
    """The tensors that a function gave."""
    return [result] if isinstance(result, Tensor) else [y for y in result if isinstance(y, Tensor)]


def leaves(inputs: Sequence[Any]) -> list[Tensor]:
    """The inputs that want a gradient."""
    return [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]


def own_copies(inputs: Inputs, dtype: torch.dtype | None = None) -> Inputs:
    """Inputs that nobody else writes into (Liger does), floats in `dtype` if given."""
    return tuple(_copied(x, dtype) if isinstance(x, Tensor) else x for x in inputs)


def _copied(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    dtype = dtype if dtype is not None and x.is_floating_point() else x.dtype
    return x.detach().to(dtype, copy=True).requires_grad_(x.requires_grad)


def liger(function: str, *options: Any, **others: Any) -> Peer:
    """A peer of `liger_kernel.ops`: its autograd function with the case's inputs, then `options`."""
    if importlib.util.find_spec("liger_kernel") is None:
        return Peer(name="liger", run=outputs, missing="liger-kernel is not installed")
    try:
        found = getattr(importlib.import_module("liger_kernel.ops"), function)
    except Exception as error:  # whatever its import meets on this machine is a reason to go without, and is kept
        return Peer(name="liger", run=outputs, missing=f"{type(error).__name__}: {error}")
    return Peer(name="liger", run=lambda *inputs: found.apply(*inputs, *options), **others)
