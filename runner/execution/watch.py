"""Shows the events of running steps while they come: a thread that reads the streams and nothing else."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from runner.execution import events
from runner.ui.progress import Progress

EVERY_S = 0.2


@dataclass
class _Stream:
    name: str
    path: Path
    offset: int


class Watch:
    """Feeds a ``Progress`` from event streams."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._streams: dict[Path, _Stream] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="watch")
        self._thread.start()

    def add(self, name: str, path: Path) -> None:
        """Show what comes to the stream at ``path`` from now on."""
        with self._lock:
            if path not in self._streams:
                size = path.stat().st_size if path.exists() else 0
                self._streams[path] = _Stream(name, path, size)

    def close(self) -> None:
        """Show what is left and stop."""
        self._over.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            self._look()

    def _look(self) -> None:
        with self._lock:
            for stream in self._streams.values():
                found, stream.offset = events.read(stream.path, stream.offset)
                for event in found:
                    self._progress.event(stream.name, event)
