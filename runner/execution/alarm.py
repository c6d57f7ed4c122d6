"""Ends an attempt that was cancelled or is out of time: politely, then by raising in its main thread, then hard."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from runner.execution.failures import Cancelled, OutOfTime, Stop

CANCEL = "cancel"  # file of a run's folder: somebody wants the run to end
GRACE_S = 5.0  # each of the two steps up: asked -> raised -> hard
LOOK_S = 0.1


class Alarm:
    """Watches one attempt from a thread; the job asks ``check`` between items."""

    def __init__(self, *, marker: Path, timeout_s: float, hard: Callable[[Stop], None]) -> None:
        self._marker = marker
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._hard = hard
        self._reason: Stop | None = None
        self._over = threading.Event()

    def check(self) -> None:
        """Raise ``Cancelled`` or ``OutOfTime`` when the attempt has to end."""
        if self._reason is not None:
            raise self._reason

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the code inside. It is interrupted only when it runs in the main thread, as every attempt does."""
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGALRM, self._raise) if main else None
        thread = threading.Thread(target=self._watch, args=(threading.get_ident() if main else None,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()  # no signal can come after this
            if main:
                signal.signal(signal.SIGALRM, before)

    def _watch(self, main: int | None) -> None:
        while self._reason is None:
            if self._over.wait(LOOK_S):
                return
            self._reason = self._look()
        if self._over.wait(GRACE_S):
            return
        if main is not None:
            signal.pthread_kill(main, signal.SIGALRM)
        if not self._over.wait(GRACE_S):
            self._hard(self._reason)

    def _look(self) -> Stop | None:
        if self._marker.exists():
            return Cancelled("cancelled")
        if time.monotonic() > self._deadline:
            return OutOfTime(f"compute.timeout of {self._timeout_s:g} s is used up")
        return None

    def _raise(self, _signal: int, _frame: FrameType | None) -> None:
        if not self._over.is_set():
            self.check()
