"""The model's output for whole recordings, kept on disk: to decode it again with other weights costs no second pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.asr.ctc import Ctc
from runner.asr.layout import Layout
from runner.asr.pieces import Answer, Outcome, Piece
from runner.asr.recordings import Recording
from runner.asr.spool import Spool

OK = "ok"


class Rows(Ctc):
    """An engine that gives every window's log-probabilities instead of text."""

    def finish(self, outcome: Outcome, piece: Piece, result: Any, loud: NDArray[np.bool_]) -> Outcome:
        return super().finish(outcome, replace(piece, alone=False), result, loud)


class RowsCollector:
    """From windows to one file per recording, `rows/<item>.npy`: float32, [frames, vocab]."""

    def __init__(self, spool: Spool, layout: Layout, recordings: Sequence[Recording], folder: Path) -> None:
        self._spool, self._layout, self._recordings = spool, layout, recordings
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.done = spool.resumed

    def start(self) -> None:
        """Keep what the headers ruled out."""
        for item, recording in enumerate(self._recordings):
            if recording.trouble is not None and not self._spool.has(item, 0):
                self._finish(item, recording.trouble.status)

    def resume(self) -> None:
        """Finish recordings whose windows were all there when the last attempt ended."""
        for item in list(self._spool.waiting()):
            self._join(item)

    def take(self, answer: Answer) -> None:
        """Keep one worker's answer."""
        for outcome in answer.outcomes:
            if self._spool.has(outcome.item, outcome.window):
                continue
            samples = self._recordings[outcome.item].samples
            window = self._layout.cut.window(samples, outcome.window)
            if outcome.rows is not None:
                most = -(-samples // self._layout.cut.stride) + 1
                self._spool.put_rows(outcome.item, outcome.rows, at=window.keep_from, frames=most, blank=answer.blank)
            end = window.keep_from + (0 if outcome.rows is None else len(outcome.rows))
            status = outcome.trouble.status if outcome.trouble else OK
            self._spool.add_window(outcome.item, outcome.window, {"status": status, "end": end})
            self._join(outcome.item)
        self._spool.flush()

    def _join(self, item: int) -> None:
        windows = self._spool.waiting()[item]
        if len(windows) < self._layout.cut.count(self._recordings[item].samples):
            return
        troubles = [windows[at]["status"] for at in sorted(windows) if windows[at]["status"] != OK]
        rows = self._spool.rows(item)
        if rows is not None and not troubles:
            path = self._folder / f"{item}.npy"
            np.save(path.with_suffix(".new.npy"), rows[: max(entry["end"] for entry in windows.values())])
            path.with_suffix(".new.npy").replace(path)
        self._finish(item, troubles[0] if troubles else OK)

    def _finish(self, item: int, status: str) -> None:
        self._spool.finish(item, {"status": status}, {})
        self.done += 1
