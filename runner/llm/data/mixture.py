"""Which documents of several corpora are taken, and in what order: the same for the same seed, everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")
Opened = Callable[[int], Iterator[tuple[int, Item]]]  # the rows of a corpus from a number on, each with its number


def epoch(sizes: Sequence[int], weights: Sequence[float], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Documents of one epoch as [N, 2] (source, row), shuffled.

    A weight of 2 takes each of a source's documents twice, one of 0.5 half of them, the other half in the next epoch:
    over many epochs every document of a source is taken equally often, give or take one.
    """
    parts = []
    for source, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        turn = np.random.default_rng([seed, source]).permutation(size) / max(size, 1)  # the same in every epoch
        times = np.floor(weight * (epoch + 1) + turn).astype(np.int64) - np.floor(weight * epoch + turn).astype(
            np.int64
        )
        rows = np.repeat(np.arange(size), times)
        parts.append(np.stack([np.full(len(rows), source), rows], axis=1))
    taken = np.concatenate(parts)
    shuffled: NDArray[np.int64] = np.random.default_rng([seed, len(sizes), epoch, 1]).permutation(taken)
    return shuffled


class Stream(Generic[Item]):
    """Rows of several corpora without end, ``(source, row, item)``, without knowing how many rows there are.

    Sources are read in order, again from the start after their end, each as often as its share: at any moment what was
    taken of two sources differs from their shares by at most one row. What was read is shuffled within blocks of
    ``block`` rows, which are all that is held in memory. ``state`` says in a few numbers where the stream is; a stream
    made from it goes on with the same rows, after reading one block again.
    """

    def __init__(
        self,
        sources: Sequence[Opened[Item]],
        shares: Sequence[float],
        *,
        seed: int,
        block: int,
        state: dict[str, Any] | None = None,
    ) -> None:
        assert len(sources) == len(shares) > 0, "as many shares as sources"
        begin = state or {"block": 0, "given": 0, "taken": [0] * len(sources), "rows": [0] * len(sources)}
        self._sources, self._shares, self._seed, self._size = sources, shares, seed, block
        self._block: int = begin["block"]
        self._taken: list[int] = list(begin["taken"])  # rows of each source up to now
        self._rows: list[int] = list(begin["rows"])  # where each source goes on
        self._open = [source(row) for source, row in zip(sources, self._rows, strict=True)]
        self._fill()
        self._given: int = begin["given"]  # rows of this block

    @property
    def state(self) -> dict[str, Any]:
        """Where the stream is, JSON types only."""
        if self._given == self._size:  # the next block: this one need not be read again
            return {**self._here(self._block + 1), "given": 0}
        return {**self._began, "given": self._given}

    def __iter__(self) -> Iterator[tuple[int, int, Item]]:
        return self

    def __next__(self) -> tuple[int, int, Item]:
        if self._given == self._size:
            self._block += 1
            self._fill()
        self._given += 1
        return self._held[self._given - 1]

    def _fill(self) -> None:
        self._began = self._here(self._block)
        self._given = 0
        held = [self._next() for _ in range(self._size)]
        order = np.random.default_rng([self._seed, self._block, 2]).permutation(self._size)
        self._held: list[tuple[int, int, Item]] = [held[place] for place in order]

    def _here(self, block: int) -> dict[str, Any]:
        return {"block": block, "taken": list(self._taken), "rows": list(self._rows)}

    def _next(self) -> tuple[int, int, Item]:
        """A row of the source that lags most behind its share."""
        source = min(range(len(self._shares)), key=lambda one: (self._taken[one] + 0.5) / self._shares[one])
        found = next(self._open[source], None)
        if found is None:
            self._open[source] = self._sources[source](0)
            found = next(self._open[source])
        row, item = found
        self._taken[source] += 1
        self._rows[source] = row + 1
        return source, row, item
