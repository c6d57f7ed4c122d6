"""Caches of keys and values beside packed rows: transformers makes one by default, in training too.

A model that has a cache takes each row for one document, whatever the positions say: documents packed into one row
would see each other, and nobody be told. So no cache is made where nobody wants one, and where one is wanted, rows
must be whole.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Given = tuple[tuple[Any, ...], dict[str, Any]]  # what a forward is called with


def heed(model: nn.Module) -> Callable[[], None]:
    """Look at what `model` is called with before it makes a cache; the function that is returned undoes it.

    Where `use_cache` is not given, there is none while gradients are computed in training mode, nor for rows whose
    positions begin again. Where a cache is asked for, such rows raise ValueError. Positions are read from the device
    only where a cache would be made, and never of calls with a mask, with lengths of documents or of one token a row.
    """
    handles = [module.register_forward_pre_hook(_before, with_kwargs=True) for module in _makers(model)]

    def undo() -> None:
        for handle in handles:
            handle.remove()

    return undo


def _makers(model: nn.Module) -> list[nn.Module]:
    """The modules that make caches, whoever calls them: the innermost models of transformers with such an argument."""
    able = [x for x in model.modules() if isinstance(x, PreTrainedModel) and "use_cache" in _names(type(x).forward)]
    return [one for one in able if not any(other in able for other in list(one.modules())[1:])]


@cache
def _names(forward: Callable[..., Any]) -> tuple[str, ...]:
    """What a class's forward takes, without `self`."""
    return tuple(inspect.signature(forward).parameters)[1:]


def _before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Given | None:
    given = dict(zip(_names(type(module).forward), args, strict=False)) | kwargs
    asked, past = given.get("use_cache"), given.get("past_key_values")
    made = getattr(module.config, "use_cache", False) if asked is None else asked
    if not made and past is None:
        return None
    unasked = asked is None and past is None
    if unasked and module.training and torch.is_grad_enabled():
        return args, kwargs | {"use_cache": False}
    again = _begins_again(given, jumps=unasked)
    if again is None:
        return None
    if unasked:
        return args, kwargs | {"use_cache": False}
    wish = "use_cache=True" if past is None else "past_key_values"
    raise ValueError(
        f"{type(module).__name__} got {wish} and position_ids that begin again in row {again[0]} at token {again[1]}: "
        "with a cache a row is one document, and packed ones would see each other. Pass use_cache=False and no "
        "past_key_values, or one document a row."
    )


def _begins_again(given: dict[str, Any], *, jumps: bool) -> tuple[int, int] | None:
    """Row and token where positions do not go on, where transformers would cut rows by them if it had no cache."""
    positions = given.get("position_ids")
    elsewhere = any(given.get(name) is not None for name in ("attention_mask", "cu_seq_lens_q"))
    if elsewhere or not isinstance(positions, Tensor) or positions.shape[-1] < 2:
        return None
    if positions.dim() == 3 and len(positions) == 4:  # Qwen-VL's: those of the text, then time, height and width
        positions = positions[0]
    if positions.dim() != 2:
        return None
    steps = positions.diff()
    at = ((steps != 1) if jumps else (steps <= 0)).nonzero()[:1].tolist()  # the one wait for the device
    return (at[0][0], at[0][1] + 1) if at else None
