"""Windows whose text hangs on less than what a fast number format can tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Natural log. Where two symbols were close, bf16 moved one against the other by 0.010 in the middle, by 0.060 at most
# (1,509 frames of the quickstart's model, clean and noisy). With 0.06, 6 of the 53 windows of its clips are in
# doubt (tests/asr/test_precision.py), of noisier ones more.
DOUBT = 0.06

Symbols = NDArray[np.int64]  # [frames]
Rows = NDArray[np.float32]  # [frames, vocab], log-probabilities


def doubtful(rows: Rows, *, blank: int, margin: float = DOUBT) -> bool:
    """Whether symbols less than ``margin`` behind the first of their frames would change the greedy text.

    Most such frames would not: at the edge of a letter, blank or the letter again give the same text.
    """
    best = rows.argmax(axis=1)
    frames = np.arange(len(rows))
    close = rows > (rows[frames, best] - margin)[:, None]
    close[frames, best] = False
    near = np.flatnonzero(close.any(axis=1))
    if not len(near):
        return False
    said = _collapsed(best, blank)
    return any(not np.array_equal(_collapsed(other, blank), said) for other in _others(best, close, near))


def _others(best: Symbols, close: NDArray[np.bool_], near: Symbols) -> Iterator[Symbols]:
    """What else could have been chosen: in one frame, or in a stretch of them at once."""
    for frame in near:
        for symbol in np.flatnonzero(close[frame]):
            yield _with(best, np.array([frame]), symbol)
    for stretch in np.split(near, np.flatnonzero(np.diff(near) > 1) + 1):
        if len(stretch) > 1:
            yield _with(best, stretch, close[stretch].argmax(axis=1))


def _with(best: Symbols, frames: Symbols, symbols: Any) -> Symbols:
    other = best.copy()
    other[frames] = symbols
    return other


def _collapsed(symbols: Symbols, blank: int) -> Symbols:
    """Repeats merged, blanks dropped."""
    first = np.r_[True, symbols[1:] != symbols[:-1]]
    kept: Symbols = symbols[first & (symbols != blank)]
    return kept
