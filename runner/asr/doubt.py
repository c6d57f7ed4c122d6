"""Windows whose text hangs on less than what a fast number format can tell apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Natural log. Where two symbols were close, bf16 moved one against the other by 0.010 in the middle, by 0.060 at most
# (1,509 frames of the quickstart's model, clean and noisy). With 0.06, 2 of 41 windows are in doubt.
DOUBT = 0.06

Rows = NDArray[np.float32]  # [frames, vocab], log-probabilities


def doubtful(rows: Rows, *, blank: int, margin: float = DOUBT) -> bool:
    """Whether a frame's second symbol, less than ``margin`` behind its first, would change the greedy text.

    Most such frames would not: at the edge of a letter, blank or the letter again give the same text.
    """
    second, best = np.argpartition(rows, (-2, -1), axis=1)[:, -2:].T  # in this order
    frames = np.arange(len(rows))
    near = np.flatnonzero(rows[frames, best] - rows[frames, second] < margin)
    said = _collapsed(best, blank)
    for frame in near:
        other = best.copy()
        other[frame] = second[frame]
        if not np.array_equal(_collapsed(other, blank), said):
            return True
    return False


def _collapsed(symbols: NDArray[np.int64], blank: int) -> NDArray[np.int64]:
    """Repeats merged, blanks dropped."""
    first = np.r_[True, symbols[1:] != symbols[:-1]]
    kept: NDArray[np.int64] = symbols[first & (symbols != blank)]
    return kept
