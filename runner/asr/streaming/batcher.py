"""Windows of many streams computed together, so that they share one model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from runner.asr.streaming.session import Session

Samples = NDArray[np.float32]
Rows = NDArray[np.float32]
Asked = tuple[Session, Samples]


class Batcher:
    """``compute`` is the model; no call of it gets more than ``most`` samples, unless a single window has more."""

    def __init__(self, compute: Callable[[Sequence[Samples]], list[Rows]], *, most: int) -> None:
        self._compute, self._most = compute, most

    def settle(self, sessions: Sequence[Session]) -> None:
        """Answer all that ``sessions`` ask for, until each needs to hear more. Errors stay with their session."""
        while asked := [(s, window) for s in sessions if (window := s.request()) is not None]:
            for batch in self._batches(asked):
                for (session, _), rows in zip(batch, self._compute([window for _, window in batch]), strict=True):
                    session.answer(rows)

    def _batches(self, asked: list[Asked]) -> Iterator[list[Asked]]:
        """The shortest first: nobody's partial waits for another's final reading."""
        batch: list[Asked] = []
        for one in sorted(asked, key=lambda pair: len(pair[1])):
            if batch and sum(len(window) for _, window in batch) + len(one[1]) > self._most:
                yield batch
                batch = []
            batch.append(one)
        yield batch
