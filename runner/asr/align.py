"""Where given symbols lie on the frame grid: the best CTC path that spells them (Viterbi)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runner.asr.words import Path


def align(log_probs: NDArray[np.floating], symbols: NDArray[np.intp], *, blank: int) -> Path:
    """The most probable path that collapses to ``symbols``, none of which is the blank.

    ``log_probs`` is [frames, vocab]. Takes frames x (2 x symbols + 1) bytes. Raises ValueError when the frames are too
    few: each symbol needs one, and each pair of equal neighbours a blank between them.
    """
    if not len(symbols):
        return Path(ids=symbols, first=symbols, last=symbols)
    steps, score = _forward(log_probs, symbols, blank=blank)
    if not np.isfinite(score.max()):
        repeats = int((symbols[1:] == symbols[:-1]).sum())
        needed = len(symbols) + repeats
        raise ValueError(f"{len(symbols)} symbols with {repeats} repeats need {needed} frames, got {len(log_probs)}")
    states = _backward(steps, 2 * len(symbols) - 1 + int(score[1] > score[0]))
    spoken = np.flatnonzero(states % 2)
    which = states[spoken] // 2
    edges = np.flatnonzero(np.diff(which)) + 1
    return Path(ids=symbols, first=spoken[np.append(0, edges)], last=spoken[np.append(edges, len(which)) - 1] + 1)


def _forward(
    log_probs: NDArray[np.floating], symbols: NDArray[np.intp], *, blank: int
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """How many states each step advanced, [frames, states], and the scores of the two states that may end a path.

    Even states are blanks and odd ones symbols: blank, first symbol, blank, second symbol, ..., blank.
    """
    states = np.full(2 * len(symbols) + 1, blank)
    states[1::2] = symbols
    may_skip = np.zeros(len(states), dtype=bool)
    may_skip[3::2] = symbols[1:] != symbols[:-1]
    steps = np.zeros((len(log_probs), len(states)), dtype=np.int8)
    score = np.full(len(states), -np.inf)
    score[:2] = log_probs[0, states[:2]] if len(log_probs) else -np.inf
    one, two = np.full((2, len(states)), -np.inf)
    for frame in range(1, len(log_probs)):
        one[1:] = score[:-1]
        two[2:] = score[:-2]
        two[~may_skip] = -np.inf
        advanced = one > score
        score = np.where(advanced, one, score)
        skipped = two > score
        steps[frame] = np.where(skipped, 2, advanced)
        score = np.where(skipped, two, score) + log_probs[frame, states]
    return steps, score[-2:]


def _backward(steps: NDArray[np.int8], state: int) -> NDArray[np.intp]:
    """The state of each frame, from the state of the last one."""
    states = np.empty(len(steps), dtype=np.intp)
    for frame in range(len(steps) - 1, -1, -1):
        states[frame] = state
        state -= int(steps[frame, state])
    return states
