"""Forced alignment by torchaudio, where it imports: the same path as ``align``, which stands in everywhere else.

torchaudio's wheels need a CUDA build of torch; beside a CPU build they fail to load with an OSError. Two things go to
``align`` in any case. What is long: its steps take frames x (2 x symbols + 1) bytes, counted in 32 bits. And what holds
silence: where the two ways that lead into a symbol cost the same, torchaudio 2.8 takes neither but stays where it was,
though that costs more; its path was worse than the best in 348 of 2,988 random texts, some frames of which were silent.
Tests compare both where it imports: `pytest tests/asr/align -k torchaudio` (62 passed with torchaudio 2.11).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from runner.asr.align import search as own
from runner.asr.words import Path

MISSING: str | None = None  # why torchaudio cannot be used
try:
    from torchaudio.functional import forced_align  # type: ignore[import-not-found,unused-ignore]
except (ImportError, OSError) as error:
    forced_align = None
    MISSING = str(error).partition("\n")[0]

MOST = 1 << 28  # states x frames: 256 MB


def best_path(log_probs: NDArray[np.floating], symbols: NDArray[np.intp], *, blank: int) -> Path:
    """What ``runner.asr.align.search.align`` gives, by torchaudio where it imports and the lattice is small enough."""
    small = len(log_probs) * (2 * len(symbols) + 1) <= MOST
    fits = len(symbols) > 0 and own.frames_needed(symbols) <= len(log_probs)
    if MISSING or not small or not fits or _tied(log_probs[:, np.unique(np.append(symbols, blank))]):
        return own.align(log_probs, symbols, blank=blank)
    return align(log_probs, symbols, blank=blank)


def _tied(log_probs: NDArray[np.floating]) -> bool:
    """Whether some frame holds two symbols equally probable, as frames of silence do."""
    ordered = np.sort(log_probs, axis=1)
    return bool((ordered[:, 1:] == ordered[:, :-1]).any())


def align(log_probs: NDArray[np.floating], symbols: NDArray[np.intp], *, blank: int) -> Path:
    """By torchaudio, in double precision as ours; at least one symbol, and frames enough for all."""
    rows = torch.from_numpy(np.ascontiguousarray(log_probs, dtype=np.float64))[None]
    found, _ = forced_align(rows, torch.from_numpy(symbols.astype(np.int64))[None], blank=blank)
    frames = found[0].numpy()
    first = np.flatnonzero(np.concatenate(([True], frames[1:] != frames[:-1])))
    last = np.append(first[1:], len(frames))
    spoken = frames[first] != blank
    return Path(ids=symbols, first=first[spoken], last=last[spoken])
