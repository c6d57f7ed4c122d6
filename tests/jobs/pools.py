"""A pool that tells what a job gave it, answers backwards, and stops the job on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from runner.context import Context, Pool, Result, Worker
from runner.execution.failures import Cancelled
from runner.execution.order import JobFunction


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A pool that tells what it was given, and may answer backwards."""

    inner: Pool
    given: list[tuple[int, int]]
    backwards: bool
    workers: int

    def imap(self, make: Callable[[], Worker], items: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        answers = self.inner.imap(make, self._noted(items))
        yield from reversed(list(answers)) if self.backwards else answers

    def _noted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.given.extend((piece.item, piece.window) for batch in item for piece in batch)
            yield item


def watching(
    run: Callable[[Any, Context], Result],
    given: list[tuple[int, int]],
    *,
    backwards: bool = False,
    workers: int = 1,
    stop_after: int | None = None,
) -> JobFunction:
    """``run`` with a watched pool; it is cancelled once ``stop_after`` answers were taken."""

    def job(spec: Any, ctx: Context) -> Result:
        taken = 0

        def check() -> None:
            nonlocal taken
            taken += 1
            ctx.check()
            if stop_after is not None and taken > stop_after:
                raise Cancelled("by the test")

        pool = Watched(inner=ctx.pool, given=given, backwards=backwards, workers=workers)
        return run(spec, replace(ctx, pool=pool, check=check))

    return job
