"""From frames to vectors. Shapes: T frames, D features of a frame (of one layer after another, or of their sum)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pooling = Literal["none", "mean", "std", "mean_std", "max", "word"]
Frames = NDArray[np.floating]  # [T, D]; may lie on disk
Vectors = NDArray[np.float64]  # [n, D of the result]

BLOCK = 4096  # frames at a time: an hour is never copied as a whole
STATISTICS: dict[Pooling, tuple[str, ...]] = {
    "none": ("frame",),
    "mean": ("mean",),
    "std": ("std",),
    "mean_std": ("mean", "std"),
    "max": ("max",),
    "word": ("mean",),
}


def blocks(count: int) -> Iterator[slice]:
    """Frames 0 to ``count`` in blocks."""
    return (slice(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK))


def pooled(frames: Frames, heard: NDArray[np.bool_], pooling: Pooling) -> Vectors:
    """One vector of the frames that are ``heard``, of which there is one at least. [1, D of the result]."""
    return np.concatenate([_STATISTIC[name](frames, heard) for name in STATISTICS[pooling]])[None]


def over_spans(frames: Frames, spans: Sequence[tuple[int, int]]) -> Vectors:
    """The mean over each half-open span of frames, none of them empty. [spans, D]."""
    return np.stack([_mean(frames[first:last], np.ones(last - first, np.bool_)) for first, last in spans])


def _sum(frames: Frames, heard: NDArray[np.bool_], of: Callable[[Vectors], Vectors]) -> Vectors:
    total = np.zeros(frames.shape[1])
    for part in blocks(len(frames)):
        total += of(frames[part][heard[part]].astype(np.float64)).sum(axis=0)
    return total


def _mean(frames: Frames, heard: NDArray[np.bool_]) -> Vectors:
    mean: Vectors = _sum(frames, heard, lambda block: block) / heard.sum()
    return mean


def _std(frames: Frames, heard: NDArray[np.bool_]) -> Vectors:
    """Of the population: 0 for a single frame."""
    mean = _mean(frames, heard)
    spread: Vectors = np.sqrt(_sum(frames, heard, lambda block: np.square(block - mean)) / heard.sum())
    return spread


def _max(frames: Frames, heard: NDArray[np.bool_]) -> Vectors:
    most = np.full(frames.shape[1], -np.inf)
    for part in blocks(len(frames)):
        most = np.maximum(most, frames[part][heard[part]].max(axis=0, initial=-np.inf))
    return most


_STATISTIC: dict[str, Callable[[Frames, NDArray[np.bool_]], Vectors]] = {"mean": _mean, "std": _std, "max": _max}
