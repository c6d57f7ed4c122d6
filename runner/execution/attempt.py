"""One attempt of one step, in whatever process carries it: inputs, context, job, gates, report. Publishes nothing."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from runner.context import Context, Pool, Result, Team
from runner.execution import capture, environment, events, failures, limits
from runner.execution.alarm import CANCEL, Alarm
from runner.execution.events import Writer
from runner.execution.failures import Cancelled, SaidFailedError, Stop
from runner.execution.inputs import Inputs
from runner.execution.order import Made, Order, Outcome
from runner.plan import gates
from runner.plan.step import Step
from runner.report import build
from runner.schema import discover
from runner.schema.errors import JobError, UserError
from runner.schema.job import Job
from runner.schema.kinds import job_class
from runner.store.local import Store, open_store
from runner.store.owner import me

PROGRESS_S = 0.25  # between two progress events: the stream of a day stays below 50 MB


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What an executor needs to make a crew."""

    folder: Path  # of the run
    check: Callable[[], None]
    log: Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Crew:
    """The processes at the disposal of a job."""

    pool: Pool
    team: Team


def carry_out(order: Order, *, crew: Callable[[Tools], Crew], hard: Callable[[Stop], None]) -> Outcome:
    """Carry ``order`` out. Raises nothing: what went wrong is in the outcome, the events and the log.

    ``hard`` ends a job that does not stop when it must; it does not return.
    """
    try:
        folder = open_store(order.store).run_folder(order.run)
        with contextlib.closing(Writer(folder / events.FILE, order.run)) as writer:
            return _captured(order, folder, writer, crew, hard)
    except (UserError, OSError) as error:  # the stream or the log cannot be written
        return failed(error)


def _captured(
    order: Order, folder: Path, writer: Writer, crew: Callable[[Tools], Crew], hard: Callable[[Stop], None]
) -> Outcome:
    alarm = Alarm(marker=folder / CANCEL, timeout_s=order.timeout_s, hard=hard)
    writer.write("state", state="running", attempt=order.attempt, process=asdict(me()))
    share = order.share
    with capture.captured(folder / capture.FILE) as say, limits.applied(threads=share.threads, gpus=share.gpus):
        tools = Tools(folder=folder, check=alarm.check, log=teller(writer, say))
        return _guarded(order, alarm, writer, crew(tools), tools)


def _guarded(order: Order, alarm: Alarm, writer: Writer, crew: Crew, tools: Tools) -> Outcome:
    try:
        inputs = Inputs(step=order.step, spec=spec_of(order.step), store=open_store(order.store))
        with alarm.watching():
            result = _run(order, inputs, writer, crew, tools)
        return Outcome(state="made", made=_made(order, inputs, result))
    except (Cancelled, KeyboardInterrupt):
        tools.log("cancelled")
        return Outcome(state="cancelled", exit_code=130)
    except (Exception, SystemExit, Stop) as error:
        traceback.print_exc()  # into log.txt
        return failed(error)


def spec_of(step: Step) -> Job:
    """The spec of a step as the model of its kind."""
    return job_class(step.kind).model_validate(step.spec)


def _run(order: Order, inputs: Inputs, writer: Writer, crew: Crew, tools: Tools) -> Result:
    step = order.step
    run = order.job or discover.load("runner.jobs", step.kind).run
    context = Context(
        run=order.run,
        folder=Path(step.folder),
        out=tools.folder / "out",
        records=tools.folder / "records",
        checkpoints=tools.folder / "checkpoints",
        inputs=inputs.given(tools.log),
        threads=order.share.threads,
        pool=crew.pool,
        team=crew.team,
        device="cuda" if order.share.gpus else "cpu",
        progress=ProgressEvents(writer),
        log=tools.log,
        metric=lambda name, value: writer.write("metric", name=name, value=value),
        check=tools.check,
    )
    result: Result = run(inputs.spec, context)
    for line in result.ledger:
        writer.write("ledger", **asdict(line))
    if result.failure is None and not any(files for _, _, files in os.walk(context.out)):
        raise JobError(f"the job of {step.kind!r} ended without writing a file", failure="UserCode")
    return result


def _made(order: Order, inputs: Inputs, result: Result) -> Made:
    """Hold the gates, write the report, and put together what the manifest says."""
    step = order.step
    held = gates.check(step.spec.get("gates") or {}, result.metrics)
    made = Made(
        inputs=inputs.rows(),
        metrics=build.plain(result.metrics),
        gates=tuple(asdict(gate) for gate in held),
        ledger=tuple(asdict(line) for line in result.ledger),
        environment=environment.environment(),
        code={**environment.code(), "code_version": inputs.spec.code_version},
        run={
            "id": order.run,
            "attempts": order.attempt,
            "started": _iso(order.began),
            "ended": _iso(time.time()),
            "host": me().host,
            "executor": order.executor,
        },
        failure=result.failure,
    )
    _report(order, inputs.store, made, result)
    return made


def _report(order: Order, store: Store, made: Made, result: Result) -> None:
    passed = all(gate["passed"] for gate in made.gates)
    report = build.Report(
        name=f"{order.step.name}@{order.version}" if passed and not made.failure else order.step.name,
        kind=order.step.kind,
        outcome="failed" if made.failure else "published" if passed else "quarantined",
        spec=order.step.spec,
        fingerprint=order.step.fingerprint,
        inputs=made.inputs,
        environment=made.environment,
        code=made.code,
        run=made.run,
        gates=made.gates,
        result=result,
        audio_root=Path(order.step.folder),
    )
    build.write(store.run_folder(order.run), report)


def failed(error: BaseException) -> Outcome:
    """The outcome that ``error`` means."""
    failure = failures.classify(error)
    code = error.exit_code if isinstance(error, UserError) else 4 if failure == "Infeasible" else 1
    return Outcome(
        state="failed",
        failure=failure,
        message=failures.describe(error),
        exit_code=code,
        again=failures.may_repeat(error),
        resumes=isinstance(error, SaidFailedError),
    )


class ProgressEvents:
    """Turns a job's progress into events, not too many."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._next = 0.0

    def __call__(self, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if now >= self._next or done >= total:
            self._next = now + PROGRESS_S
            self._writer.write("progress", done=done, total=total, unit=unit)


def teller(writer: Writer, say: Callable[[str], None]) -> Callable[[str], None]:
    """Says a text with ``say`` and writes it as an event."""

    def tell(text: str) -> None:
        say(text)
        writer.write("log", text=text)

    return tell


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
