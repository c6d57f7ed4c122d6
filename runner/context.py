"""What a job is given and what it gives back. The one seam between execution and jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class LedgerLine:
    """One optimisation: wanted, applied or skipped, and why."""

    what: str  # "precision", "batching", ...
    where: str = ""  # the part of the model or job it touches
    wanted: Literal["required", "preferred", "off"] = "preferred"
    applied: bool
    why: str
    parity_error: float | None = None  # against the reference on this device
    saving: str | None = None  # measured, in words with its unit


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows for the report. ``audio`` names a column whose values are names of short clips to play: their paths, or what
    ``clips`` has a path for. Paths are relative to ``Context.folder``."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    note: str = ""  # e.g. "the first 2,000 of 100,000; all are in transcripts.jsonl"
    audio: str | None = None
    clips: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One plot for the report: bars (``kind='bar'``) or points (``kind='scatter'``)."""

    title: str
    kind: Literal["bar", "scatter"]
    x: list[Any]
    y: list[float]
    x_label: str
    y_label: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a job hands over beside the files in ``ctx.out`` and ``ctx.records``."""

    metrics: Mapping[str, Any]  # gates `max_x` and `min_x` look at metrics["x"]; counts stand beside ratios
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # metric -> 95% bootstrap interval
    ledger: tuple[LedgerLine, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)  # stage -> seconds, summed over workers
    notes: tuple[str, ...] = ()  # what a reader must know, e.g. "synthetic speech"
    failure: str | None = None  # the job ends as failed, after its results were kept; the text says why


@dataclass(frozen=True, kw_only=True)
class Given:
    """One input, resolved and lying on this machine's disk."""

    field: str  # spec field, e.g. "model", "data.audio", "data.manifest"
    ref: str  # as pinned by the plan
    digest: str
    path: Path  # folder or file
    # of FILES fields, and CORPUS fields of several: in order, relative to ``Context.folder``, absolute when outside
    files: tuple[str, ...] = ()


class Worker(Protocol):
    """Work that a pool hands out: built once per process, called once per item. Both must be picklable."""

    def __call__(self, item: Any) -> Any: ...


class Pool(Protocol):
    """``workers`` processes (or this one) that carry out items."""

    workers: int

    def imap(self, make: Callable[[], Worker], items: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Yield ``(position of the item, result)`` as they are done, in any order.

        ``make`` is a picklable callable without arguments (``functools.partial`` of a class): each process calls it
        once. At most a few items per worker are in flight, so ``items`` may be a long generator. An item whose worker
        process died is handed to another one; after three deaths on one item the run fails.
        """
        ...


class Team(Protocol):
    """``size`` processes that do one piece of work together, for example train one model."""

    size: int

    def run(self, work: Callable[[Context], Any], ctx: Context) -> Any:
        """Call ``work`` in each process of the team; what it returned in the first.

        Each is given ``ctx`` with what belongs to it alone: only the first process is heard, and none has another pool
        or team. A team of one is this process. The processes of a larger one are new and have joined
        torch.distributed (gloo on CPUs, NCCL on GPUs, one GPU each; see ``runner.ranks``), with RANK, WORLD_SIZE,
        LOCAL_RANK and LOCAL_WORLD_SIZE set. ``work`` and what it returns must be picklable. The first failure ends
        them all and is raised here; the death of a process is `Preempted`, so that the next attempt goes on from the
        checkpoints.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a job runs. Paths exist; ``out`` and ``records`` are emptied before each attempt, ``checkpoints`` stays."""

    run: str  # run id
    folder: Path  # folder of the spec file
    out: Path  # becomes files/ of the artifact
    records: Path  # becomes records/
    checkpoints: Path  # survives attempts of the same run; the same fingerprint always
    inputs: Mapping[str, Given]  # by spec field
    threads: int  # CPU threads of each worker
    pool: Pool
    team: Team
    device: str  # "cpu" or "cuda"
    progress: Callable[[int, int, str], None]  # (done, total, unit)
    log: Callable[[str], None]
    metric: Callable[[str, float], None]
    check: Callable[[], None]  # raises when the run was cancelled or is out of time; call it between items
