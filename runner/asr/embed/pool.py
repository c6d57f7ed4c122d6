"""From frames to vectors. Shapes: T frames, D features of a frame (of one layer after another, or of their sum)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pooling = Literal["none", "mean", "std", "mean_std", "max", "word"]
Frames = NDArray[np.floating]  # [T, D]; may lie on disk
Vectors = NDArray[np.float64]  # [n, D of the result]

BLOCK = 512  # frames at a time: as many numbers are copied, whatever the window or recording holds
STATISTICS: dict[Pooling, tuple[str, ...]] = {
    "none": ("frame",),
    "mean": ("mean",),
    "std": ("std",),
    "mean_std": ("mean", "std"),
    "max": ("max",),
    "word": ("mean",),
}
# what is kept of one window, so that those of all windows give the statistic of the whole
PARTS: dict[Pooling, tuple[str, ...]] = {
    "mean": ("mean",),
    "std": ("mean", "std"),
    "mean_std": ("mean", "std"),
    "max": ("max",),
}


def blocks(count: int) -> Iterator[slice]:
    """Frames 0 to ``count`` in blocks."""
    return (slice(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK))


def part(frames: Frames, heard: NDArray[np.bool_], pooling: Pooling) -> Vectors:
    """What is kept of one window: a row for each of ``PARTS``, and how many frames are ``heard`` in the last column.

    [parts, D + 1]; all 0 where nothing is heard.
    """
    names = PARTS[pooling]
    found = np.zeros((len(names), frames.shape[1] + 1))
    if heard.any():
        found[:, :-1] = [_STATISTIC[name](frames, heard) for name in names]
        found[:, -1] = heard.sum()
    return found


def pooled(parts: Frames, pooling: Pooling) -> Vectors:
    """One vector of a recording by the ``part`` of each window, [windows, parts, D + 1], which may lie on disk.

    Something is heard in one of them. [1, D of the result].
    """
    merged: list[Vectors] = [_MERGED[name](_Windows(parts, PARTS[pooling])) for name in STATISTICS[pooling]]
    return np.concatenate(merged)[None]


def over_spans(frames: Frames, spans: Sequence[tuple[int, int]]) -> Vectors:
    """The mean over each half-open span of frames, none of them empty. [spans, D]."""
    return np.stack([_mean(frames[first:last], np.ones(last - first, np.bool_)) for first, last in spans])


def _sum(frames: Frames, heard: NDArray[np.bool_], of: Callable[[Vectors], Vectors]) -> Vectors:
    total = np.zeros(frames.shape[1])
    for block in blocks(len(frames)):
        total += of(frames[block][heard[block]].astype(np.float64)).sum(axis=0)
    return total


def _mean(frames: Frames, heard: NDArray[np.bool_]) -> Vectors:
    mean: Vectors = _sum(frames, heard, lambda frames: frames) / heard.sum()
    return mean


def _std(frames: Frames, heard: NDArray[np.bool_]) -> Vectors:
    """Of the population: 0 for a single frame."""
    mean = _mean(frames, heard)
    spread: Vectors = np.sqrt(_sum(frames, heard, lambda frames: np.square(frames - mean)) / heard.sum())
    return spread


def _max(frames: Frames, heard: NDArray[np.bool_]) -> Vectors:
    most = np.full(frames.shape[1], -np.inf)
    for block in blocks(len(frames)):
        most = np.maximum(most, frames[block][heard[block]].max(axis=0, initial=-np.inf))
    return most


_STATISTIC: dict[str, Callable[[Frames, NDArray[np.bool_]], Vectors]] = {"mean": _mean, "std": _std, "max": _max}


class _Windows:
    """The windows in which something is heard."""

    def __init__(self, parts: Frames, names: Sequence[str]) -> None:
        self._parts, self._names = parts, names
        counts = np.array(parts[:, 0, -1], np.float64)
        self._at = np.flatnonzero(counts)
        self.shares = (counts / counts.sum())[self._at]  # of all frames that are heard

    def each(self, name: str) -> Iterator[Vectors]:
        """One window's statistic after another."""
        row = self._names.index(name)
        return (self._parts[at, row, :-1].astype(np.float64) for at in self._at)

    def mean(self, values: Iterable[Vectors]) -> Vectors:
        """Of a number for each window, by its share."""
        return sum((share * value for share, value in zip(self.shares, values, strict=True)), np.zeros(()))


def _merged_mean(windows: _Windows) -> Vectors:
    return windows.mean(windows.each("mean"))


def _merged_std(windows: _Windows) -> Vectors:
    """What frames differ from their window's mean, and windows from the mean of all."""
    mean = _merged_mean(windows)
    both = zip(windows.each("std"), windows.each("mean"), strict=True)
    spread: Vectors = np.sqrt(windows.mean(np.square(inside) + np.square(own - mean) for inside, own in both))
    return spread


def _merged_max(windows: _Windows) -> Vectors:
    return reduce(np.maximum, windows.each("max"))


_MERGED: dict[str, Callable[[_Windows], Vectors]] = {"mean": _merged_mean, "std": _merged_std, "max": _merged_max}
