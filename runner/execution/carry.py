"""Carries a plan out: order, capacity, leases, attempts and retries. Publishes only under a lease."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import replace

from runner.execution import failures, finish, process
from runner.execution.attempt import failed
from runner.execution.failures import RETRIES, Cancelled, Stop
from runner.execution.order import Executor, JobFunction, Outcome
from runner.execution.results import Action, StepResult, blocked, is_unchanged, unchanged
from runner.execution.share import share_of
from runner.execution.signals import Signals
from runner.execution.task import Task
from runner.execution.watch import Watch
from runner.plan import capacity
from runner.plan.capacity import Capacity, local_capacity
from runner.plan.step import Plan, Step
from runner.schema.errors import InfeasibleError, UserError
from runner.store.local import Store
from runner.ui.progress import Progress

TICK_S = 0.2
LastResort = Callable[[Stop], None]


def carry_out(
    plan: Plan,
    store: Store,
    *,
    make_executor: Callable[[LastResort], Executor],
    here: bool,
    progress: Progress,
    job: JobFunction | None = None,
) -> tuple[StepResult, ...]:
    """Carry every step of ``plan`` out, in an order that its references allow; what fails blocks only what needs it.

    ``make_executor`` is given a last resort, and is called only when something has to run; ``here`` says that it uses
    this machine alone, so that capacity can be checked before it is started. ``job`` stands in for the jobs of all
    kinds, in tests. Raises InfeasibleError before anything has run.
    """
    apply = _Apply(plan, store, progress, job)
    with apply.watching():  # also while it closes: ray takes seconds to end, and what is published is told all the same
        try:
            return apply.run(make_executor, here=here)
        finally:
            apply.close()


class _Apply:
    """One apply: steps wait, become tasks, and end as results."""

    def __init__(self, plan: Plan, store: Store, progress: Progress, job: JobFunction | None) -> None:
        self._plan = plan
        self._store = store
        self._progress = progress
        self._job = job
        self._waiting = {step.name: step for step in plan.steps}
        self._tasks: dict[str, Task] = {}
        self._results: dict[str, StepResult] = {}
        self._signals = Signals()
        self._watch = Watch(progress)
        self._executor: Executor | None = None
        self._capacity = Capacity(nodes=())
        self._spared = frozenset(process.descendants(os.getpid()))  # they were there before

    def watching(self) -> contextlib.AbstractContextManager[None]:
        """Take signals as orders to end."""
        return self._signals.watching(ask=self._ask, hard=lambda: self._hard(Cancelled("interrupted")))

    def run(self, make_executor: Callable[[LastResort], Executor], *, here: bool) -> tuple[StepResult, ...]:
        """Every step's result, in the order of the plan."""
        if any(step.action == "create" for step in self._plan.steps):
            self._start(make_executor, here=here)
        while self._waiting or self._tasks:
            self._settle_what_cannot_run()
            self._start_what_can()
            self._collect()
        return tuple(self._results[step.name] for step in self._plan.steps)

    def close(self) -> None:
        """Leave nothing open: leases, streams, processes."""
        self._signals.calm()  # what was asked to end has ended
        for task in self._tasks.values():  # only when an error of ours comes through here
            task.release()
        try:
            self._watch.close()
            self._progress.close()
            if self._executor is not None:
                self._executor.close()
        finally:
            if self._executor is not None:
                self._end_processes()

    def _start(self, make_executor: Callable[[LastResort], Executor], *, here: bool) -> None:
        if here:
            self._check(local_capacity())
        process.adopt_orphans()
        self._executor = make_executor(self._hard)
        self._capacity = self._executor.capacity()
        self._check(self._capacity)

    def _check(self, found: Capacity) -> None:
        creates = (step for step in self._plan.steps if step.action == "create")
        problems = [problem for step in creates if (problem := capacity.check(step, found))]
        if problems:
            raise InfeasibleError("\n".join(problems))

    # steps that wait

    def _settle_what_cannot_run(self) -> None:
        for step in list(self._waiting.values()):
            lost = [up for up in step.after if up in self._results and not self._results[up].usable]
            if self._signals.asked:
                self._settle(_ended(step, "cancelled", 130, "interrupted before it began"))
            elif step.action == "blocked":
                self._settle(blocked(step))
            elif lost:
                code = max(self._results[up].exit_code for up in lost)
                self._settle(_ended(step, "skipped", code, f"needs {', '.join(map(repr, lost))}"))

    def _start_what_can(self) -> None:
        for step in list(self._waiting.values()):
            if self._signals.asked or not all(up in self._results for up in step.after):
                continue
            if is_unchanged(step):
                self._guarded(step, self._unchanged)
            elif step.action == "reuse":
                self._guarded(step, self._reuse)
            elif share_of(step, self._capacity).fits_beside((t.share for t in self._tasks.values()), self._capacity):
                self._guarded(step, self._begin)

    def _guarded(self, step: Step, act: Callable[[Step], None]) -> None:
        """Whatever goes wrong with one step is its result, not the end of the others."""
        try:
            act(step)
        except (UserError, OSError) as error:
            code = error.exit_code if isinstance(error, UserError) else 1
            failure = failures.classify(error) if code == 1 else None
            self._settle(replace(_ended(step, "failed", code, failures.describe(error)), failure=failure))

    def _unchanged(self, step: Step) -> None:
        self._settle(unchanged(step, self._store))

    def _reuse(self, step: Step) -> None:
        assert step.reuse is not None, f"{step.name}: nothing to reuse"
        twin = self._results.get(step.reuse)  # a step of this plan that does the same work
        source = twin.artifact if twin is not None and twin.artifact is not None else step.reuse
        with self._store.lease(step.name) as lease:
            self._settle(finish.reuse(self._store, lease, step, source))

    def _begin(self, step: Step) -> None:
        assert self._executor is not None
        with contextlib.ExitStack() as undo:
            lease = undo.enter_context(self._store.lease(step.name))
            found = self._store.by_fingerprint(step.fingerprint, step.name)
            if found is not None:  # another apply was quicker
                self._settle(finish.reuse(self._store, lease, step, found))
                return
            share = share_of(step, self._capacity)
            task = Task(step, store=self._store, lease=lease, share=share, watch=self._watch, job=self._job)
            finish.check_inputs(task.inputs, self._store)
            self._tasks[step.name] = task
            del self._waiting[step.name]
            undo.pop_all()  # from here on the task holds the lease
        self._attempt(task)

    # steps at work

    def _attempt(self, task: Task) -> None:
        assert self._executor is not None
        try:
            order = task.next_order(self._executor.name)
            if self._signals.asked:
                task.ask_to_end()
            self._executor.submit(order)
        except Exception as error:  # the lease lost, the disk full, ray gone: whatever it is, it ends this step alone
            self._take(task, replace(failed(error), again=False))

    def _collect(self) -> None:
        if self._executor is None or not self._tasks:
            return
        self._try_again()
        if not self._tasks:
            return
        ended = self._executor.finished(wait_s=TICK_S)
        for order, outcome in ended:
            self._take(self._tasks[order.step.name], outcome)
        if not ended and all(task.again_at is not None for task in self._tasks.values()):
            time.sleep(TICK_S)

    def _try_again(self) -> None:
        for task in list(self._tasks.values()):
            if task.again_at is None:
                continue
            if self._signals.asked or task.asked_to_end:
                self._take(task, Outcome(state="cancelled", exit_code=130))
            elif time.monotonic() >= task.again_at:
                self._attempt(task)

    def _take(self, task: Task, outcome: Outcome) -> None:
        """An attempt ended: publish, try again, or let the step fail."""
        if outcome.made is not None:
            try:
                result = finish.publish(self._store, task.lease, task.step, task.inputs, outcome.made)
            except (UserError, OSError) as error:
                outcome = replace(failed(error), again=False)
            else:
                self._end(task, result)
                return
        if outcome.state == "cancelled":
            self._end(task, _ended(task.step, "cancelled", 130, "cancelled; apply again to go on"))
            return
        assert outcome.failure is not None
        retries = min(RETRIES[outcome.failure].tries, int(task.step.spec["compute"]["retries"]))
        again = outcome.again and task.tries <= retries and not self._signals.asked
        task.note(outcome, again=again)
        if again:
            task.wait(failures.wait_s(outcome.failure, task.tries))
            return
        ended = _ended(task.step, "failed", outcome.exit_code, outcome.message)
        self._end(task, replace(ended, failure=outcome.failure))

    def _end(self, task: Task, result: StepResult) -> None:
        del self._tasks[task.step.name]
        self._settle(task.end(result))

    def _settle(self, result: StepResult) -> None:
        self._results[result.name] = result
        self._waiting.pop(result.name, None)

    # the end

    def _end_processes(self) -> None:
        spare = frozenset() if self._executor is None else self._executor.spare
        process.end_descendants(self._spared | spare)

    def _ask(self) -> None:
        for task in self._tasks.values():
            task.ask_to_end()

    def _hard(self, reason: Stop) -> None:
        """The last resort: end every process below this one, and this one. Does not return."""
        code = 130 if isinstance(reason, Cancelled) else 1
        try:
            for task in self._tasks.values():
                task.end_hard(reason)
            self._end_processes()
            self._progress.say("stopped hard; apply again to go on")
            self._progress.close()  # a terminal gets its cursor back
        finally:
            os._exit(code)


def _ended(step: Step, action: Action, code: int, message: str) -> StepResult:
    return StepResult(name=step.name, kind=step.kind, action=action, exit_code=code, message=message)
