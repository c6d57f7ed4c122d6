"""Runs: one folder for all attempts to carry a step out. What state a run is in follows from its events."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.schema.errors import StoreError
from runner.store.disk import make_folder, storing, write_atomic
from runner.store.owner import me
from runner.store.paths import run_number

RUN = "run.json"


@dataclass(frozen=True, kw_only=True)
class Run:
    """The content of ``run.json``."""

    id: str  # NAME.<first 8 of the fingerprint>.<n>
    name: str
    kind: str
    fingerprint: str
    attempts: int  # this one included
    executor: str
    host: str
    pid: int
    created: str  # UTC, ISO 8601


def read_runs(folder: Path, prefix: str = "") -> list[Run]:
    """Every run whose id begins with ``prefix``, oldest first."""
    if not folder.is_dir():
        return []
    with storing("read the runs", folder):
        found = [read_run(entry) for entry in folder.iterdir() if entry.name.startswith(prefix)]
    return sorted((r for r in found if r), key=lambda r: (r.created, run_number(r.id)))


def read_run(folder: Path) -> Run | None:
    """The run that lies in ``folder``; None when there is none, or it was killed before it began."""
    try:
        data: dict[str, Any] = json.loads((folder / RUN).read_bytes())
        return Run(**{f.name: data[f.name] for f in fields(Run)})
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def begin(folder: Path, *, name: str, kind: str, fingerprint: str, executor: str, succeeded: set[str]) -> Run:
    """Begin an attempt: of the last run of this fingerprint unless it ``succeeded`` (run ids), else of a new one.

    Makes ``out/`` and ``records/`` empty and ``checkpoints/`` present. The caller holds the lease on ``name``.
    """
    prefix = f"{name}.{fingerprint[:8]}."
    before = read_runs(folder, prefix)
    last = max(before, key=lambda r: run_number(r.id), default=None)
    process = me()
    if last and last.fingerprint == fingerprint and last.id not in succeeded:
        run = replace(last, attempts=last.attempts + 1, executor=executor, host=process.host, pid=process.pid)
    else:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        run = Run(
            id=f"{prefix}{run_number(last.id) + 1 if last else 1}",
            name=name,
            kind=kind,
            fingerprint=fingerprint,
            attempts=1,
            executor=executor,
            host=process.host,
            pid=process.pid,
            created=now,
        )
    with storing("begin the run", folder / run.id):
        _prepare(folder / run.id)
        write_atomic(folder / run.id / RUN, json.dumps(asdict(run), indent=1).encode() + b"\n")
    return run


def _prepare(folder: Path) -> None:
    for part in ("out", "records"):
        empty(folder / part)
        make_folder(folder / part)
    make_folder(folder / "checkpoints")


def empty(folder: Path) -> None:
    """Remove a run's folder and what is in it; a link in its place is refused, it would lead elsewhere."""
    if folder.is_symlink():
        raise StoreError(f"{str(folder)!r} is a link; remove it and apply again")
    if folder.exists():
        shutil.rmtree(folder)
