"""Whole weights out of processes that share them, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor

from runner import ranks

Gathered = Callable[[Any], AbstractContextManager[Any]]  # of ZeRO-3: the parameter is whole within


def full_state(model: Any, *, gathered: Gathered | None = None) -> dict[str, Tensor] | None:
    """The state of ``model`` by its own names, whole and on the CPU, in the first process; None in the others.

    Of a model with an adapter what is trained. Every process calls it, and no process holds more than one whole tensor
    beside its own part on its device. Tied weights are one tensor under several names.
    """
    names = dict(_wanted(model))
    seen: dict[int, Tensor] = {}
    found: dict[str, Tensor] = {}
    for name, one in names.items():
        if id(one) not in seen:
            seen[id(one)] = _whole(one, gathered)
        found[name] = seen[id(one)]
    return found if ranks.rank() == 0 else None


def _wanted(model: Any) -> Iterator[tuple[str, Any]]:
    adapter = hasattr(model, "peft_config")
    saved = model.state_dict(keep_vars=True) if not adapter else {}
    for name, one in model.named_parameters(remove_duplicate=False):
        if one.requires_grad or not adapter:
            yield name, one
            saved.pop(name, None)
    yield from saved.items()  # buffers


def _whole(one: Any, gathered: Gathered | None) -> Tensor:
    if isinstance(one, DTensor):
        return _kept(one.full_tensor())
    if gathered is not None and hasattr(one, "ds_id"):
        with gathered(one):
            return _kept(one)
    return _kept(one)


def _kept(one: Any) -> Tensor:
    """A copy on the CPU where it is of use; elsewhere nothing is held."""
    whole: Tensor = one.detach()
    return whole.cpu().clone() if ranks.rank() == 0 else whole.new_empty(0)
