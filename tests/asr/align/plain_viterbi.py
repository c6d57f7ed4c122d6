"""The textbook's forced alignment, one state at a time: what ours is held against, and raced with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def plain(log_probs: NDArray[np.floating], symbols: NDArray[np.intp], *, blank: int) -> list[int]:
    """The symbol of each frame on the best path; on ties the one that stays longer in the earlier state."""
    states = [blank]
    for symbol in symbols.tolist():
        states += [symbol, blank]
    rows = log_probs.astype(np.float64).tolist()
    never = float("-inf")
    score = [rows[0][state] if i < 2 else never for i, state in enumerate(states)]
    steps: list[list[int]] = [[]]
    for row in rows[1:]:
        came, now = [], []
        for i, state in enumerate(states):
            best, step = score[i], 0
            if i > 0 and score[i - 1] > best:
                best, step = score[i - 1], 1
            if i > 2 and state not in {blank, states[i - 2]} and score[i - 2] > best:
                best, step = score[i - 2], 2
            now.append(best + row[state])
            came.append(step)
        score = now
        steps.append(came)
    at = len(states) - 1 if len(states) == 1 or score[-1] > score[-2] else len(states) - 2
    path = [0] * len(rows)
    for frame in range(len(rows) - 1, -1, -1):
        path[frame] = states[at]
        if frame:
            at -= steps[frame][at]
    return path
