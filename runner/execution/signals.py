"""Ctrl-C and SIGTERM: the first one asks the runs to end, a second one or ten seconds end them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

GRACE_S = 10.0


class Signals:
    """Whether this apply was told to stop."""

    def __init__(self) -> None:
        self.asked = False
        self._ask: Callable[[], None] = lambda: None
        self._hard: Callable[[], None] = lambda: None
        self._timer: threading.Timer | None = None

    @contextlib.contextmanager
    def watching(self, *, ask: Callable[[], None], hard: Callable[[], None]) -> Iterator[None]:
        """Call ``ask`` at the first signal; ``hard``, which does not return, at the second or after the grace."""
        self._ask, self._hard = ask, hard
        before = {}
        if threading.current_thread() is threading.main_thread():
            numbers = [
                n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN
            ]
            before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            self.calm()
            for number, handler in before.items():
                signal.signal(number, handler)

    def calm(self) -> None:
        """Stop the grace of a first signal: what was asked to end has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            self._hard()
        self.asked = True
        self._timer = threading.Timer(GRACE_S, self._hard)
        self._timer.daemon = True
        self._timer.start()
        self._ask()
