"""All windows of all recordings as arrays: 100,000 of them take a few MB. A window's piece is made when dealt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from runner.asr.batches import Plan
from runner.asr.pieces import Piece
from runner.asr.recordings import Recording
from runner.asr.windows import Cut

DEAL_BATCHES = 8  # a worker decodes ahead within a deal; more would only make steps coarser


class Layout:
    """The windows of ``recordings`` under ``cut``; window k of the job is ``(items[k], windows[k])``."""

    def __init__(self, recordings: Sequence[Recording], cut: Cut) -> None:
        self._recordings = recordings
        self.cut = cut
        counts = np.array([cut.count(r.samples) if r.samples else 0 for r in recordings], dtype=np.int64)
        self.items = np.repeat(np.arange(len(recordings)), counts)
        starts = np.cumsum(counts) - counts
        self.windows = np.arange(len(self.items)) - starts[self.items]
        self.lengths = np.array([self._length(k) for k in range(len(self.items))], dtype=np.int64)

    def _length(self, k: int) -> int:
        window = self.cut.window(self._recordings[self.items[k]].samples, int(self.windows[k]))
        return window.last - window.first

    def piece(self, k: int) -> Piece:
        """Window ``k`` of the job, for a worker."""
        item, index = int(self.items[k]), int(self.windows[k])
        recording = self._recordings[item]
        window = self.cut.window(recording.samples, index)
        before = window.first // self.cut.stride
        assert recording.header is not None, "a recording without a header has no windows"
        alone = self.cut.count(recording.samples) == 1
        return Piece(
            item=item,
            window=index,
            alone=alone,
            path=recording.clip.path,
            header=recording.header,
            channel=recording.channel,
            first=recording.first + window.first,
            last=recording.first + window.last,
            keep_from=window.keep_from - before,
            keep_to=None if window.keep_to is None else window.keep_to - before,
            text=recording.clip.text if alone else None,
        )

    def deals(
        self, plan: Plan, *, workers: int, done: Callable[[int, int], bool], most: int = DEAL_BATCHES
    ) -> Iterator[tuple[tuple[Piece, ...], ...]]:
        """Batches of ``plan``, ``most`` at a time or fewer.

        A batch is left out when all of its windows are done, never in part: what a window gives may depend in the last
        bit on the batch it is in.
        """
        size = max(1, min(most, len(plan) // (4 * workers)))
        deal: list[tuple[Piece, ...]] = []
        for batch in plan:
            if all(done(int(self.items[k]), int(self.windows[k])) for k in batch):
                continue
            deal.append(tuple(self.piece(int(k)) for k in batch))
            if len(deal) == size:
                yield tuple(deal)
                deal = []
        if deal:
            yield tuple(deal)

    def digest(self) -> str:
        """sha256 of what the results' positions mean: recordings in order and how they are cut."""
        digest = hashlib.sha256(repr(self.cut).encode())
        for recording in self._recordings:
            line = [recording.fields(), recording.first, recording.samples]
            digest.update(json.dumps(line, sort_keys=True).encode())
        return digest.hexdigest()
