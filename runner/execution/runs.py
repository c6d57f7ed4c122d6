"""Runs, as their event streams tell them. A run lies in one folder: events.ndjson, log.txt, checkpoints/."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from runner.execution import events
from runner.execution.events import Event
from runner.execution.failures import RETRIES
from runner.execution.process import owner_of
from runner.schema.errors import FailureClass, UsageError
from runner.store import runs as folders
from runner.store.local import Store
from runner.store.owner import Owner

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]
ENDS = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run as it is now. Times are seconds since 1970."""

    id: str
    name: str
    kind: str
    fingerprint: str
    state: State
    attempts: int
    executor: str
    host: str
    created: float
    started: float | None  # of the first attempt
    ended: float | None  # of the last one; of an interrupted run the last sign of life
    failure: FailureClass | None
    resumes: bool  # whether the next apply goes on after a failure even where its class does not
    message: str
    artifact: str | None  # "NAME@vN"
    progress: tuple[int, int, str] | None  # done, total, unit
    carrier: Owner | None  # the process of the last attempt
    folder: Path

    @property
    def is_over(self) -> bool:
        """Whether nobody works on it any more."""
        return self.state not in {"queued", "running"}

    @property
    def can_resume(self) -> bool:
        """Whether the next apply of the same fingerprint goes on with it."""
        if self.state == "failed":
            return self.resumes or (self.failure is not None and RETRIES[self.failure].resumes)
        return self.state in {"cancelled", "interrupted"}

    def seconds(self, now: float | None = None) -> float | None:
        """Duration from the first attempt to the end, or to ``now``; None before the first."""
        if self.started is None:
            return None
        return max(0.0, (self.ended if self.ended is not None else now or time.time()) - self.started)

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        data = {**vars(self), "folder": str(self.folder), "seconds": self.seconds()}
        return {k: vars(v) if isinstance(v, Owner) else v for k, v in data.items()}


def of_id(store: Store, run: str) -> Run | None:
    """The run with this id; None when there is none."""
    begun = folders.read_run(store.run_folder(run))
    return None if begun is None else _summary(begun, store)


def every(store: Store, name: str | None = None) -> list[Run]:
    """Runs of one name or of all, newest first."""
    begun = folders.read_runs(store.layout.runs, "" if name is None else f"{name}.")
    return [_summary(run, store) for run in reversed(begun)]


def last(store: Store, name: str, fingerprint: str) -> Run | None:
    """The newest run of a name that made this fingerprint."""
    begun = folders.read_runs(store.layout.runs, f"{name}.{fingerprint[:8]}.")
    return _summary(begun[-1], store) if begun else None


def find(store: Store, word: str) -> Run:
    """The run with the id ``word``, or the newest of the name ``word``; raises UsageError."""
    known = store.runs()
    for run in reversed(known):
        if word in {run.id, run.name}:
            return _summary(run, store)
    near = get_close_matches(word, {w for run in known for w in (run.name, run.id)}, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`runner runs` lists them" if known else "there is none yet"
    raise UsageError(f"no run or name {word!r} in {str(store.root)!r}; {hint}")


def _summary(begun: folders.Run, store: Store) -> Run:
    folder = store.run_folder(begun.id)
    stream, _ = events.read(folder / events.FILE)
    states = [e for e in stream if e["type"] == "state"]
    running = [e for e in states if e["state"] == "running"]
    last: Event = states[-1] if states else {"state": "interrupted"}  # killed before it said anything
    state: State = last["state"]
    if state not in ENDS and not _is_held(begun, store):
        state = "interrupted"
    created = datetime.fromisoformat(begun.created).timestamp()
    progress = next((e for e in reversed(stream) if e["type"] == "progress"), None)
    return Run(
        id=begun.id,
        name=begun.name,
        kind=begun.kind,
        fingerprint=begun.fingerprint,
        state=state,
        attempts=begun.attempts,
        executor=begun.executor,
        host=begun.host,
        created=created,
        started=running[0]["t"] if running else None,
        ended=(stream[-1]["t"] if stream else created) if state not in {"queued", "running"} else None,
        failure=last.get("failure"),
        resumes=next((bool(e.get("resumes")) for e in reversed(stream) if e["type"] == "error"), False),
        message=last.get("message", ""),
        artifact=last.get("artifact"),
        progress=(progress["done"], progress["total"], progress["unit"]) if progress else None,
        carrier=owner_of(running[-1].get("process")) if running else None,
        folder=folder,
    )


def _is_held(run: folders.Run, store: Store) -> bool:
    """Whether an apply works on ``run``: it holds the lease, which a killed one loses."""
    holder = store.holder(run.name)
    return holder is not None and holder.run == run.id
