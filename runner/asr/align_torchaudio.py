"""Forced alignment by torchaudio, where it imports: the same path as ``align``, which stands in everywhere else.

torchaudio's wheels need a CUDA build of torch; beside a CPU build they fail to load with an OSError. Its steps take
frames x (2 x symbols + 1) bytes, counted in 32 bits, so what is long goes to ``align`` in any case.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from runner.asr import align as own
from runner.asr.words import Path

MISSING: str | None = None  # why torchaudio cannot be used
try:
    from torchaudio.functional import forced_align  # type: ignore[import-not-found,unused-ignore]
except (ImportError, OSError) as error:
    forced_align = None
    MISSING = str(error).partition("\n")[0]

MOST = 1 << 28  # states x frames: 256 MB


def best_path(log_probs: NDArray[np.floating], symbols: NDArray[np.intp], *, blank: int) -> Path:
    """What ``runner.asr.align.align`` gives, by torchaudio where it imports and the lattice is small enough."""
    states = 2 * len(symbols) + 1
    if MISSING or not len(symbols) or len(log_probs) * states > MOST or len(log_probs) < own.frames_needed(symbols):
        return own.align(log_probs, symbols, blank=blank)
    return align(log_probs, symbols, blank=blank)


def align(log_probs: NDArray[np.floating], symbols: NDArray[np.intp], *, blank: int) -> Path:
    """By torchaudio, in double precision as ours; at least one symbol, and frames enough for all."""
    rows = torch.from_numpy(np.ascontiguousarray(log_probs, dtype=np.float64))[None]
    found, _ = forced_align(rows, torch.from_numpy(symbols.astype(np.int64))[None], blank=blank)
    frames = found[0].numpy()
    first = np.flatnonzero(np.concatenate(([True], frames[1:] != frames[:-1])))
    last = np.append(first[1:], len(frames))
    spoken = frames[first] != blank
    return Path(ids=symbols, first=first[spoken], last=last[spoken])
