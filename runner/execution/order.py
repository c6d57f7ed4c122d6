"""What an executor is asked to do and what it answers: plain values that travel between processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from runner.context import Context, Result
from runner.execution.share import Share
from runner.plan.capacity import Capacity
from runner.plan.step import Step
from runner.schema.errors import FailureClass

JobFunction = Callable[[Any, Context], Result]


@dataclass(frozen=True, kw_only=True)
class Order:
    """One attempt of one step."""

    step: Step
    store: str  # absolute path
    run: str
    attempt: int  # from 1, counted over every apply of the run
    version: str  # that the artifact will get: "v3"
    began: float  # start of the first attempt, seconds since 1970
    share: Share
    timeout_s: float
    executor: str
    job: JobFunction | None = None  # instead of the kind's own: for tests


@dataclass(frozen=True, kw_only=True)
class Made:
    """What an attempt made, beside the files in the run's folder. All of it goes into the manifest."""

    inputs: tuple[dict[str, Any], ...]
    metrics: dict[str, Any]
    gates: tuple[dict[str, Any], ...]
    ledger: tuple[dict[str, Any], ...]
    environment: dict[str, Any]
    code: dict[str, Any]
    run: dict[str, Any]
    failure: str | None  # ``Result.failure``


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended: ``made`` is what may be published; otherwise why there is nothing."""

    state: Literal["made", "failed", "cancelled"]
    made: Made | None = None
    failure: FailureClass | None = None
    message: str = ""
    exit_code: int = 0
    again: bool = True  # whether its class decides about another attempt; False: there is none
    resumes: bool = False  # whether the next apply goes on from the checkpoints even where its class does not


class Executor(Protocol):
    """Carries orders out. One apply has one executor and uses it from one thread."""

    name: str
    spare: frozenset[int]  # pids of its processes that end by themselves, last

    def capacity(self) -> Capacity:
        """What there is to run on."""
        ...

    def submit(self, order: Order) -> None:
        """Start an attempt; may return only when it has ended."""
        ...

    def finished(self, *, wait_s: float) -> Sequence[tuple[Order, Outcome]]:
        """Attempts that ended since the last call; waits at most ``wait_s`` seconds for one."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...
