"""What a mask of transformers is made of, read from its mask function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    causal_mask_function,
    packed_sequence_mask_function,
    sliding_window_bidirectional_overlay,
    sliding_window_overlay,
)

# transformers gives a mask as closures: they are known by their code, and by the values that they close over
_AND = and_masks(causal_mask_function).__code__
_WINDOW = sliding_window_overlay(1).__code__
_WINDOW_BOTH_WAYS = sliding_window_bidirectional_overlay(1).__code__
_PACKED = packed_sequence_mask_function(torch.zeros(1, 1)).__code__


@dataclass(frozen=True, kw_only=True, eq=False)
class Pattern:
    """What a mask is made of, beside padding."""

    causal: bool = False
    window: int | None = None  # |query - key| < window, and the query's own key counts
    ids: Tensor | None = None  # [B, Q]: the document of each token of packed rows
    other: str | None = None  # the part that documents and a window cannot express


def read(mask_function: Callable[..., Any]) -> Pattern:
    """The pattern of a mask function of transformers; whatever is not known by its code is `other`."""
    causal, window, ids, other = False, None, None, None
    both_ways = False
    for part in _parts(mask_function):
        code, inside = getattr(part, "__code__", None), _closed_over(part)
        if part is causal_mask_function:
            causal = True
        elif part is bidirectional_mask_function:
            both_ways = True
        elif code is _WINDOW:
            window = inside["sliding_window"]
        elif code is _WINDOW_BOTH_WAYS:
            window, both_ways = inside["sliding_window"] + 1, True
        elif code is _PACKED:
            ids = inside["packed_sequence_mask"]
        else:
            other = getattr(part, "__qualname__", repr(part)).removesuffix(".<locals>.inner_mask")
    if causal == both_ways:
        other = other or "a pattern that is neither causal nor both ways"
    return Pattern(causal=causal, window=window, ids=ids, other=other)


def _parts(mask_function: Callable[..., Any]) -> list[Callable[..., Any]]:
    if getattr(mask_function, "__code__", None) is not _AND:
        return [mask_function]
    return [part for one in _closed_over(mask_function)["mask_functions"] for part in _parts(one)]


def _closed_over(function: Any) -> dict[str, Any]:
    cells = getattr(function, "__closure__", None) or ()
    return {name: cell.cell_contents for name, cell in zip(function.__code__.co_freevars, cells, strict=True)}
