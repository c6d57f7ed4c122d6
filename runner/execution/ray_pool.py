"""A pool of ray actors, one process each. A dead one is replaced and its item handed to another."""

from __future__ import annotations

import collections
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError

from runner.context import Worker
from runner.execution import capture, failures, limits
from runner.execution.share import Share
from runner.schema.errors import FailureClass, JobError

MAX_DEATHS = 3  # on one item, or before a worker was ready
IN_FLIGHT = 2  # items per worker: one is worked on, the next lies ready
LOOK_S = 0.2
SAY_AFTER_S = 15.0


@dataclass(frozen=True, kw_only=True)
class _Error:
    """What went wrong in a worker: classes of exceptions may not exist, or not unpickle, on the other side."""

    failure: FailureClass
    message: str


class _Seat:
    """The process of one worker."""

    def __init__(self, *, log: Path, threads: int, gpus: float) -> None:
        capture.redirect_for_ever(log)
        limits.apply(threads=threads, gpus=gpus)
        self._worker: Worker | None = None

    def start(self, make: Callable[[], Worker]) -> _Error | None:
        try:
            self._worker = make()
        except Exception as error:
            return _Error(failure=failures.classify(error), message=failures.describe(error))
        return None

    def do(self, item: Any) -> Any:
        assert self._worker is not None
        try:
            return self._worker(item)
        except Exception as error:
            return _Error(failure=failures.classify(error), message=failures.describe(error))


@dataclass(kw_only=True)
class _Member:
    """One actor and what it has been given, oldest first."""

    actor: Any
    starting: Any | None  # the reference of its start, until that is done
    items: collections.deque[tuple[Any, int]] = field(default_factory=collections.deque)  # (reference, position)


class RayPool:
    """Carries out items on ``share.workers`` actors; see ``runner.context.Pool``."""

    def __init__(self, share: Share, *, folder: Path, log: Callable[[str], None], check: Callable[[], None]) -> None:
        self.workers = share.workers
        self._share = share
        self._log_file = folder / capture.FILE
        self._log = log
        self._check = check

    def imap(self, make: Callable[[], Worker], items: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Yield ``(position of the item, result)`` as they are done."""
        left = iter(items)
        first = list(itertools.islice(left, self.workers))  # no more workers than there is work
        every = itertools.chain(first, left)
        round_ = _Round(self._actor, make, every, workers=len(first), log=self._log, check=self._check)
        try:
            yield from round_.results()
        finally:
            round_.close()

    def _actor(self) -> Any:
        share = self._share
        options: dict[str, Any] = {
            "num_cpus": share.cpus,
            "num_gpus": share.gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "accelerator_type": share.accelerator if share.gpus else None,
        }
        if share.memory_gb:
            options["memory"] = int(share.memory_gb * 1e9)
        seat = ray.remote(_Seat).options(**options)
        return seat.remote(log=self._log_file, threads=share.threads, gpus=share.gpus)


class _Round:
    """One call of ``imap``."""

    def __init__(
        self,
        actor: Callable[[], Any],
        make: Callable[[], Worker],
        items: Iterable[Any],
        *,
        workers: int,
        log: Callable[[str], None],
        check: Callable[[], None],
    ) -> None:
        self._actor = actor
        self._make = ray.put(make)
        self._items = enumerate(items)
        self._held: dict[int, Any] = {}  # items that are out, kept to be handed to another worker
        self._again: collections.deque[int] = collections.deque()
        self._deaths: collections.Counter[int] = collections.Counter()  # by position; -1: before being ready
        self._log = log
        self._check = check
        self._said = time.monotonic()
        self._members = [self._hire() for _ in range(workers)]

    def results(self) -> Iterator[tuple[int, Any]]:
        """Hand out items and yield what comes back, until there are no more."""
        while True:
            self._check()
            for member in self._members:
                self._feed(member)
            if not self._held:
                return
            references = [m.starting or m.items[0][0] for m in self._members if m.starting or m.items]
            done, _ = ray.wait(references, num_returns=1, timeout=LOOK_S)
            if not done:
                self._say_what_it_waits_for()
            for reference in done:
                yield from self._collect(reference)

    def close(self) -> None:
        """End every worker."""
        for member in self._members:
            ray.kill(member.actor)
        self._members = []

    def _hire(self) -> _Member:
        actor = self._actor()
        return _Member(actor=actor, starting=actor.start.remote(self._make))

    def _feed(self, member: _Member) -> None:
        while len(member.items) < IN_FLIGHT:
            if self._again:
                position = self._again.popleft()
            else:
                position, item = next(self._items, (-1, None))
                if position < 0:
                    return
                self._held[position] = item
            member.items.append((member.actor.do.remote(self._held[position]), position))

    def _collect(self, reference: Any) -> Iterator[tuple[int, Any]]:
        member = next(m for m in self._members if reference == m.starting or (m.items and m.items[0][0] == reference))
        try:
            result = ray.get(reference)
        except (RayActorError, OutOfMemoryError) as error:
            self._replace(member, error)
            return
        if isinstance(result, _Error):
            raise JobError(result.message, failure=result.failure)
        if reference == member.starting:
            member.starting = None
            self._deaths[-1] = 0  # it can be done
            return
        _, position = member.items.popleft()
        del self._held[position]
        yield position, result

    def _replace(self, member: _Member, error: RayError) -> None:
        """The process of ``member`` died: its oldest item takes the blame, for it was the one worked on."""
        positions = [position for _, position in member.items]
        blamed = -1 if member.starting is not None or not positions else positions[0]
        self._deaths[blamed] += 1
        why = " ".join(str(error).split())[:300]
        what = "before it was ready" if blamed < 0 else f"at item {blamed}"
        if self._deaths[blamed] >= MAX_DEATHS:
            failure: FailureClass = "OutOfMemoryHost" if "memory" in why.lower() else "UserCode"
            raise JobError(f"a worker died {MAX_DEATHS} times {what}: {why}", failure=failure)
        self._log(f"a worker died {what}; another one takes over ({why})")
        self._again.extend(positions)
        self._members[self._members.index(member)] = self._hire()

    def _say_what_it_waits_for(self) -> None:
        waiting = sum(m.starting is not None for m in self._members)
        if waiting and time.monotonic() - self._said > SAY_AFTER_S:
            self._said = time.monotonic()
            self._log(f"waiting for {waiting} of {len(self._members)} workers to be placed and ready")
