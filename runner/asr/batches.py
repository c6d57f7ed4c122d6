"""One global plan of batches from lengths alone: the same for any number of workers, attempts and executors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_PADDING = 0.03  # of a batch's samples; a length-sorted corpus stays far below it


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a batch may be."""

    samples: int  # padded samples: longest window times windows; when packed, samples
    windows: int
    packed: bool = False  # whether the model takes windows without padding


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Batches as runs of ``order``: batch b is ``order[bounds[b]:bounds[b + 1]]``. Indices are positions of windows."""

    order: NDArray[np.int64]
    bounds: NDArray[np.int64]
    useful: int  # samples
    padded: int  # samples

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        for first, last in zip(self.bounds[:-1], self.bounds[1:], strict=True):
            yield self.order[first:last]

    @property
    def padding(self) -> float:
        """Share of padded samples that carry no sound."""
        return 1 - self.useful / self.padded if self.padded else 0.0


def plan(lengths: NDArray[np.int64], size: Size) -> Plan:
    """Sort by length, longest first (memory runs out early or never), and cut into batches.

    Ties keep the order of input. A batch ends when it is full, or when one more window would push its padding over
    ``MAX_PADDING``. ``lengths`` is [windows] in samples, all above 0.
    """
    order = np.argsort(-lengths, kind="stable")
    bounds, padded = [0], 0
    longest = count = held = 0
    for position, length in enumerate(lengths[order].tolist()):
        grown = held + length if size.packed else longest * (count + 1)
        sparse = held + length < (1 - MAX_PADDING) * grown
        if count and (grown > size.samples or count >= size.windows or sparse):
            bounds.append(position)
            padded += held if size.packed else longest * count
            longest = count = held = 0
        longest, count, held = longest or length, count + 1, held + length
    if count:
        bounds.append(len(order))
        padded += held if size.packed else longest * count
    return Plan(order=order, bounds=np.array(bounds), useful=int(lengths.sum()), padded=padded)
