"""Results on disk as they come: an interrupted job goes on where it was, and memory holds offsets only.

`results.jsonl` has one line per finished recording and one per finished window of a long one; the log-probabilities of
such windows lie in `frames/<item>.npy`, each at its place on the recording's frames. A torn last line is cut off. The
first line names the plan: results of another plan are not taken over.
"""

from __future__ import annotations

import json
import os
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.asr import silence

Fields = dict[str, Any]
AGAIN = ("out_of_memory", "failed")  # statuses that another attempt may better


class Spool:
    """The checkpoint of one job with ``items`` recordings."""

    def __init__(self, folder: Path, *, items: int, plan: str) -> None:
        self._frames = folder / "frames"
        self._frames.mkdir(parents=True, exist_ok=True)
        self._offsets = array("q", [-1]) * items
        self._windows: dict[int, dict[int, Fields]] = {}
        path = folder / "results.jsonl"
        end = self._take_over(path, plan) if path.exists() else 0
        self._file = path.open("r+b" if end else "w+b")
        self._file.truncate(end)
        self._file.seek(end)
        if not end:
            self._write({"plan": plan})
        self.resumed = sum(offset >= 0 for offset in self._offsets)

    def _take_over(self, path: Path, plan: str) -> int:
        """Read what an earlier attempt left; the position of the last whole line's end, 0 to begin afresh."""
        end = 0
        with path.open("rb") as file:
            for line in file:
                try:
                    entry = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    entry = None
                if entry is None or (end == 0 and entry != {"plan": plan}):
                    break
                if "window" in entry:
                    self._windows.setdefault(entry["item"], {})[entry["window"]] = entry
                elif "item" in entry:
                    self._offsets[entry["item"]] = -1 if entry["record"]["status"] in AGAIN else end
                    self._windows.pop(entry["item"], None)
                end += len(line)
        return end

    def has(self, item: int, window: int) -> bool:
        """Whether this window's result is there."""
        return self._offsets[item] >= 0 or window in self._windows.get(item, ())

    def finish(self, item: int, record: Fields, timing: Fields) -> None:
        """Keep a recording's result."""
        self._offsets[item] = self._write({"item": item, "record": record, "timing": timing})
        self._windows.pop(item, None)
        (self._frames / f"{item}.npy").unlink(missing_ok=True)

    def add_window(self, item: int, window: int, entry: Fields) -> dict[int, Fields]:
        """Keep one window of several; all of the recording's windows so far."""
        entry = {"item": item, "window": window, **entry}
        self._write(entry)
        self._windows.setdefault(item, {})[window] = entry
        return self._windows[item]

    def waiting(self) -> dict[int, dict[int, Fields]]:
        """Windows of recordings that have no result yet."""
        return self._windows

    def put_rows(
        self,
        item: int,
        rows: NDArray[np.float32],
        *,
        at: int,
        frames: int,
        blank: int,
        quiet: NDArray[np.float32] | None = None,
    ) -> None:
        """Log-probabilities of the frames from ``at`` on, of a recording with at most ``frames`` frames.

        ``quiet`` [1, columns] stands where nothing is put; left out: the certain blank.
        """
        path = self._frames / f"{item}.npy"
        if not path.exists():
            fresh = path.with_suffix(".new")
            made = np.lib.format.open_memmap(fresh, mode="w+", dtype=np.float32, shape=(frames, rows.shape[1]))
            with fresh.open("r+b") as file:  # a full disk is an OSError here, and would be a SIGBUS in the lines below
                os.posix_fallocate(file.fileno(), 0, fresh.stat().st_size)
            made[:] = silence.blank_rows(1, vocab=rows.shape[1], blank=blank) if quiet is None else quiet
            made.flush()
            fresh.rename(path)
        held = np.load(path, mmap_mode="r+")
        held[at : at + len(rows)] = rows[: frames - at]
        held.flush()

    def rows(self, item: int) -> NDArray[np.float32] | None:
        """All frames of a recording, on disk; blank where nothing was put. None when every window was silent."""
        path = self._frames / f"{item}.npy"
        return np.load(path, mmap_mode="r") if path.exists() else None

    def read(self, item: int) -> tuple[Fields, Fields]:
        """(record, timing) of a finished recording."""
        offset = self._offsets[item]
        assert offset >= 0, f"recording {item} has no result"
        self._file.seek(offset)
        entry = json.loads(self._file.readline())
        return entry["record"], entry["timing"]

    def _write(self, entry: Fields) -> int:
        self._file.seek(0, 2)
        offset = self._file.tell()
        self._file.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        return offset

    def flush(self) -> None:
        """Hand what was kept to the operating system: it survives this process."""
        self._file.flush()

    def close(self) -> None:
        """Close the file; what was kept stays."""
        self._file.close()
