"""One step at work in an apply: its lease, its run, its attempts."""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import replace

from runner.execution import events, process, runs
from runner.execution.alarm import CANCEL
from runner.execution.attempt import spec_of
from runner.execution.events import Type, Writer
from runner.execution.failures import Cancelled, Stop
from runner.execution.inputs import Inputs
from runner.execution.order import JobFunction, Order, Outcome
from runner.execution.results import StepResult
from runner.execution.share import Share, timeout_s
from runner.execution.watch import Watch
from runner.plan.step import Step
from runner.schema.errors import StoreError
from runner.store.leases import Lease
from runner.store.local import Store
from runner.store.owner import me

ORPHAN_S = 3.0  # the processes of a killed apply end by themselves within this time


class Task:
    """A step, from the moment that its name is leased to its result."""

    def __init__(
        self, step: Step, *, store: Store, lease: Lease, share: Share, watch: Watch, job: JobFunction | None
    ) -> None:
        self.step = step
        self.lease = lease
        self.share = share
        self.inputs = Inputs(step=step, spec=spec_of(step), store=store)
        self.tries = 0  # attempts of this apply
        self.again_at: float | None = None  # time.monotonic() of the next attempt; None while one is under way
        self._began = time.monotonic()
        self._store = store
        self._watch = watch
        self._job = job
        self._run = ""
        self._attempt = 0
        self._writer: Writer | None = None

    def next_order(self, executor: str) -> Order:
        """Begin an attempt: of the run that an earlier apply left unfinished, or of a new one."""
        if self.tries == 0:
            self._make_way()
        run = self._store.start_run(
            self.step.name, kind=self.step.kind, fingerprint=self.step.fingerprint, executor=executor, lease=self.lease
        )
        folder = self._store.run_folder(run.id)
        if self.tries == 0:
            (folder / CANCEL).unlink(missing_ok=True)
            self._watch.add(self.step.name, folder / events.FILE)
            self._writer = Writer(folder / events.FILE, run.id)
        self._run, self._attempt = run.id, run.attempts
        self._write("state", state="queued", executor=executor)
        self.tries += 1
        self.again_at = None
        seen = runs.of_id(self._store, run.id)
        return Order(
            step=self.step,
            store=str(self._store.root),
            run=run.id,
            attempt=run.attempts,
            version=self._store.next_version(self.step.name),
            began=seen.started if seen is not None and seen.started is not None else time.time(),
            share=self.share,
            timeout_s=timeout_s(self.step),
            executor=executor,
            job=self._job,
        )

    @property
    def asked_to_end(self) -> bool:
        """Whether somebody cancelled the run."""
        return (self._store.run_folder(self._run) / CANCEL).exists()

    def ask_to_end(self) -> None:
        """Cancel the run; its attempt ends at its next check."""
        (self._store.run_folder(self._run) / CANCEL).touch()

    def note(self, outcome: Outcome, *, again: bool) -> None:
        """Write why an attempt failed, and whether there is another one."""
        self._write("error", failure=outcome.failure, message=outcome.message, again=again, resumes=outcome.resumes)

    def wait(self, seconds: float) -> None:
        """Try again after ``seconds``."""
        self.again_at = time.monotonic() + seconds
        self._write("state", state="queued", wait_s=seconds)

    def end(self, result: StepResult) -> StepResult:
        """Write the end into the stream and give the name back; the result with what the task knows."""
        if result.action == "cancelled":
            self._write("state", state="cancelled")
        elif result.failure is not None or result.exit_code:
            self._write("state", state="failed", failure=result.failure, message=result.message)
        else:
            self._write("state", state="succeeded", artifact=result.artifact)
        self.release()
        seconds = round(time.monotonic() - self._began, 3)
        return replace(result, run=self._run or None, attempts=self._attempt, seconds=seconds)

    def end_hard(self, reason: Stop) -> None:
        """The same for an apply that is about to end itself."""
        if isinstance(reason, Cancelled):
            self._write("state", state="cancelled")
        else:
            self._write("state", state="failed", failure="Timeout", message=str(reason))
        self.release()

    def release(self) -> None:
        """Give the name back and close the stream."""
        with contextlib.suppress(StoreError):  # a full disk: the end of this process gives it back
            self.lease.release()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, kind: Type, **fields: object) -> None:
        if self._writer is None:
            return  # it failed before it had a run
        with contextlib.suppress(OSError):  # a full disk: the result of the step says what the stream cannot
            self._writer.write(kind, attempt=self._attempt, **fields)

    def _make_way(self) -> None:
        """End what a killed apply left over, and drop checkpoints of a failure that would only come again."""
        before = runs.last(self._store, self.step.name, self.step.fingerprint)
        if before is None:
            return
        if before.carrier is not None and before.carrier != me():
            process.end(before.carrier, within_s=ORPHAN_S)
        if before.state == "failed" and not before.can_resume:
            shutil.rmtree(before.folder / "checkpoints", ignore_errors=True)
