"""The pool of one process: work is done here, item after item, by the same worker objects as in a pool of many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from runner.context import Worker


class SoloPool:
    """Carries out items in this process, in order; ``workers`` is what the spec asks for."""

    def __init__(self, workers: int, check: Callable[[], None]) -> None:
        self.workers = workers
        self._check = check

    def imap(self, make: Callable[[], Worker], items: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Yield ``(position of the item, result)``; see ``runner.context.Pool``."""
        worker = make()
        for position, item in enumerate(items):
            self._check()
            yield position, worker(item)
