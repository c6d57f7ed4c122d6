"""Where nobody can be speaking: an energy floor, because normalising amplifies silence until a model hears letters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Rows = NDArray[np.float32]

REACH_S = 0.2  # a CTC model may write a letter some frames after (or before) its sound
NEVER = -1e4  # a log-probability of 0 that entropy can be computed with: 0 * -inf is NaN


def loud(samples: Samples, *, stride: int, rate: int, floor_db: float) -> NDArray[np.bool_]:
    """Whether anything within ``REACH_S`` of a frame's samples reaches ``floor_db`` (RMS, full scale is 0). [frames].

    Frame f is ``samples[f * stride:(f + 1) * stride]``; the last one may be shorter.
    """
    starts = np.arange(0, len(samples), stride)
    energy = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
    counts = np.diff(np.append(starts, len(samples)))
    over = energy / counts >= 10 ** (floor_db / 10)
    reach = round(REACH_S * rate / stride)
    return np.convolve(over, np.ones(2 * reach + 1))[reach : reach + len(over)] > 0.5


def blank_rows(frames: int, *, vocab: int, blank: int) -> Rows:
    """Log-probabilities of frames without sound. [frames, vocab]."""
    rows = np.full((frames, vocab), NEVER, np.float32)
    rows[:, blank] = 0.0
    return rows


def hush(rows: Rows, loud: NDArray[np.bool_], *, blank: int, delimiter: int | None) -> None:
    """Make frames that are not ``loud`` blank, in place, but for a word delimiter in the middle of each pause.

    A model writes the end of a word into the pause behind it, where nothing else may be written now: without a
    delimiter of its own the pause would join two words. ``loud`` is [frames], ``rows`` [frames, vocab].
    """
    quiet = ~loud
    rows[quiet] = blank_rows(1, vocab=rows.shape[1], blank=blank)
    if delimiter is None:
        return
    edges = np.flatnonzero(np.diff(np.concatenate(([False], quiet, [False])))).reshape(-1, 2)
    middles = edges.mean(axis=1).astype(np.intp)
    rows[middles, blank], rows[middles, delimiter] = NEVER, 0.0
