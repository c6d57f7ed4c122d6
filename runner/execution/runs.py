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


class Followed:
    """A run that is looked at again and again: each look reads what was written since the one before."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._folder = store.run_folder(run)
        self._offset = 0
        self._seen: dict[str, Event] = {}  # the newest event of each type; also of "running", and "any"
        self._started: float | None = None  # seconds since 1970

    def look(self) -> Run | None:
        """The run as it is now; None when there is none."""
        begun = folders.read_run(self._folder)
        if begun is None:
            return None
        found, self._offset = events.outline(self._folder / events.FILE, self._offset)
        for event in found:
            self._seen |= {"any": event, event["type"]: event}
            if event["type"] == "state" and event["state"] == "running":
                self._seen["running"] = event
                self._started = self._started or event["t"]
        return self._run(begun)

    def _run(self, begun: folders.Run) -> Run:
        seen = self._seen
        last: Event = seen.get("state", {"state": "interrupted"})  # killed before it said anything
        state: State = last["state"]
        if state not in ENDS and not _is_held(begun, self._store):
            state = "interrupted"
        created = datetime.fromisoformat(begun.created).timestamp()
        progress = seen.get("progress")
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
            started=self._started,
            ended=seen.get("any", {"t": created})["t"] if state not in {"queued", "running"} else None,
            failure=last.get("failure"),
            resumes=bool(seen.get("error", {}).get("resumes")),
            message=last.get("message", ""),
            artifact=last.get("artifact"),
            progress=(progress["done"], progress["total"], progress["unit"]) if progress else None,
            carrier=owner_of(seen["running"].get("process")) if "running" in seen else None,
            folder=self._folder,
        )


def of_id(store: Store, run: str) -> Run | None:
    """The run with this id; None when there is none."""
    return Followed(store, run).look()


def every(store: Store, name: str | None = None) -> list[Run]:
    """Runs of one name or of all, newest first."""
    begun = folders.read_runs(store.layout.runs, "" if name is None else f"{name}.")
    found = (of_id(store, run.id) for run in reversed(begun))
    return [run for run in found if run is not None]


def last(store: Store, name: str, fingerprint: str) -> Run | None:
    """The newest run of a name that made this fingerprint."""
    begun = folders.read_runs(store.layout.runs, f"{name}.{fingerprint[:8]}.")
    return of_id(store, begun[-1].id) if begun else None


def find(store: Store, word: str) -> Run:
    """The run with the id ``word``, or the newest of the name ``word``; raises UsageError."""
    known = store.runs()
    for run in reversed(known):
        if word in {run.id, run.name} and (found := of_id(store, run.id)) is not None:
            return found
    near = get_close_matches(word, {w for run in known for w in (run.name, run.id)}, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`runner runs` lists them" if known else "there is none yet"
    raise UsageError(f"no run or name {word!r} in {str(store.root)!r}; {hint}")


def _is_held(run: folders.Run, store: Store) -> bool:
    """Whether an apply works on ``run``: it holds the lease, which a killed one loses."""
    holder = store.holder(run.name)
    return holder is not None and holder.run == run.id
