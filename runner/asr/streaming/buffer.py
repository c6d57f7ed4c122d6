"""The end of an endless signal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
LEAST = 1 << 15  # samples that there is room for


class Buffer:
    """Samples by their position since the stream began. What was forgotten is overwritten, at constant cost each."""

    def __init__(self) -> None:
        self._room = np.empty(LEAST, np.float32)
        self._at = 0  # where in the room sample ``first`` lies
        self.first = 0
        self.end = 0

    def append(self, samples: Samples) -> None:
        """Put ``samples`` behind what is there."""
        held = self.end - self.first
        if self._at + held + len(samples) > len(self._room):
            fresh = np.empty(max(LEAST, 2 * (held + len(samples))), np.float32)
            fresh[:held] = self.stretch(self.first, self.end)
            self._room, self._at = fresh, 0
        here = self._at + held
        self._room[here : here + len(samples)] = samples
        self.end += len(samples)

    def stretch(self, first: int, last: int) -> Samples:
        """A copy of samples ``first`` to ``last`` (exclusive), which must be there."""
        assert self.first <= first <= last <= self.end, f"{first} to {last} is not in {self.first} to {self.end}"
        here = self._at + first - self.first
        return self._room[here : here + last - first].copy()

    def forget(self, before: int) -> None:
        """Give up what lies before sample ``before``."""
        if before > self.first:
            self._at += min(before, self.end) - self.first
            self.first = min(before, self.end)
