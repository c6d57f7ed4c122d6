"""The default executor: attempts are ray tasks, pools are ray actors, teams are Ray Train's. Imported only when
something has to run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from runner.execution import attempt, cluster, events, failures, guard, ray_leftovers
from runner.execution.alarm import CANCEL, GRACE_S
from runner.execution.attempt import Crew, Tools
from runner.execution.cluster import Place
from runner.execution.failures import Stop
from runner.execution.order import Order, Outcome
from runner.execution.pool import SoloPool
from runner.execution.ray_pool import RayPool
from runner.execution.ray_team import RayTeam
from runner.execution.team import SoloTeam
from runner.plan.capacity import Capacity
from runner.schema.errors import InfeasibleError
from runner.store.local import open_store

SAY_AFTER_S = 15.0
LOOK_S = 5.0  # between two looks at the machines
HARD_S = 3 * GRACE_S  # an attempt that should have ended has had two graces of its own


@dataclass(kw_only=True)
class _Running:
    order: Order
    folder: Path
    offset: int  # of the event stream when it was submitted
    submitted: float  # time.time()
    said: float
    started: float | None = None  # by its event
    killed: bool = False


class Ray:
    """Carries orders out on a ray that it starts on this machine, or on one that it joins."""

    name = "ray"

    def __init__(self, place: Place, *, say: Callable[[str], None]) -> None:
        self._say = say
        self._place = place
        self._running: dict[Any, _Running] = {}
        self._look_again = 0.0  # time.monotonic()
        self._teams = False  # whether there was one
        self._guard = None if place.token is None else guard.start(place.token)
        self.spare = frozenset() if self._guard is None else frozenset({self._guard.pid})
        say("starting ray (local)" if place.address is None else f"joining ray at {place.address}")
        try:
            with cluster.own_signals():
                ray.init(**cluster.options(place))
        except Exception as error:  # whatever it is: a port, a version, a time-out of ray's own
            self.close()
            what = "can't start ray here" if place.address is None else f"can't join ray at {place.address!r}"
            check = "" if place.address is None else "check --address, RAY_ADDRESS and that it is ray's own port; or "
            raise InfeasibleError(f"{what}: {failures.describe(error)}; {check}--local runs without it") from error

    def capacity(self) -> Capacity:
        """The machines of the cluster."""
        return cluster.capacity_of(ray.nodes())

    def submit(self, order: Order) -> None:
        """Queue the attempt as a task; with more than one worker it takes no CPU itself."""
        share = order.share
        alone = share.workers == 1
        self._teams = self._teams or not alone
        options: dict[str, Any] = {
            "num_cpus": share.cpus if alone else 0,
            "num_gpus": share.gpus if alone else 0,
            "max_retries": 0,
            "name": f"{order.step.name} attempt {order.attempt}",
        }
        if alone and share.memory_gb:
            options["memory"] = int(share.memory_gb * 1e9)
        if alone and share.gpus and share.accelerator and self._place.token is None:
            options["accelerator_type"] = share.accelerator
        reference = ray.remote(_carry).options(**options).remote(order)
        folder = open_store(order.store).run_folder(order.run)
        now = time.time()
        self._running[reference] = _Running(
            order=order, folder=folder, offset=(folder / events.FILE).stat().st_size, submitted=now, said=now
        )

    def finished(self, *, wait_s: float) -> Sequence[tuple[Order, Outcome]]:
        """Attempts that ended since the last call."""
        if not self._running:
            return []
        if (lost := self._look()) is not None:
            return lost
        done, _ = ray.wait(list(self._running), num_returns=1, timeout=wait_s)
        for reference, running in self._running.items():
            if reference not in done:
                self._supervise(reference, running)
        return [self._take(reference) for reference in done]

    def close(self) -> None:
        """Leave the cluster; ends the one that was started here."""
        try:
            with cluster.own_signals():  # ray's C++ side gives SIGTERM back to the system while it shuts down
                ray.shutdown()
        finally:
            if self._guard is not None:
                guard.stop(self._guard)

    def _look(self) -> Sequence[tuple[Order, Outcome]] | None:
        """Now and then: free what dead teams hold, and see whether there is a machine for those who wait."""
        now = time.monotonic()
        if now < self._look_again:
            return None
        self._look_again = now + LOOK_S
        if self._teams:
            self._free()
        return self._without_machines()

    def _free(self) -> None:
        try:
            ray_leftovers.give_back()
        except Exception as error:  # it uses private parts of ray, which another version may not have
            self._teams = False
            self._say(f"room of a team that is lost would stay taken until the end: {failures.describe(error)}")

    def _without_machines(self) -> Sequence[tuple[Order, Outcome]] | None:
        """Attempts that wait for a place when no machine is left to give them one; what runs already may go on."""
        waiting = {reference: r for reference, r in self._running.items() if r.started is None}
        if not waiting or any(node["Alive"] for node in ray.nodes()):
            return None
        for reference in waiting:
            del self._running[reference]
        gone = Outcome(
            state="failed", failure="ControlPlaneLost", message="ray has no machine left", exit_code=1, again=False
        )
        return [(running.order, gone) for running in waiting.values()]

    def _take(self, reference: Any) -> tuple[Order, Outcome]:
        running = self._running.pop(reference)
        try:
            outcome: Outcome = ray.get(reference)
        except Exception as error:  # the process or the machine was lost: an attempt itself raises nothing
            outcome = _lost(running, error)
        return running.order, outcome

    def _supervise(self, reference: Any, running: _Running) -> None:
        """End what does not end by itself, and say what is waited for."""
        now = time.time()
        started = running.started = running.started or _started(running)
        if started is None and now - running.said > SAY_AFTER_S:
            running.said = now
            waited = now - running.submitted
            self._say(f"{running.order.step.name}: waiting for {_wanted(running.order)} for {waited:.0f} s")
        late = now - (started or running.submitted) > running.order.timeout_s + HARD_S
        patience = 0.0 if started is None else HARD_S
        if not running.killed and (late or _asked_s(running.folder) > patience):
            running.killed = True
            ray.cancel(reference, force=True)


def _carry(order: Order) -> Outcome:
    """The task: runs in a process of the cluster."""
    return attempt.carry_out(order, crew=lambda tools: _crew(order, tools), hard=_hard)


def _crew(order: Order, tools: Tools) -> Crew:
    share = order.share
    if share.workers == 1:
        return Crew(pool=SoloPool(1, tools.check), team=SoloTeam())
    pool = RayPool(share, folder=tools.folder, log=tools.log, check=tools.check)
    return Crew(pool=pool, team=RayTeam(share, timeout_s=order.timeout_s, log=tools.log, check=tools.check))


def _hard(_reason: Stop) -> None:
    os._exit(1)


def _lost(running: _Running, error: Exception) -> Outcome:
    """What it means that the process of an attempt ended without an answer."""
    if _asked_s(running.folder) > 0:
        return Outcome(state="cancelled", exit_code=130)
    started = _started(running)
    limit = running.order.timeout_s
    if running.killed or (started is not None and time.time() - started > limit):
        what = "compute.timeout of {:g} s is used up" if started else "no room was found within {:g} s"
        return Outcome(state="failed", failure="Timeout", message=what.format(limit), exit_code=1, again=False)
    failure, message = failures.classify(error), failures.describe(error)
    return Outcome(state="failed", failure=failure, message=message, exit_code=4 if failure == "Infeasible" else 1)


def _started(running: _Running) -> float | None:
    """When the attempt began to run, by its event."""
    stream, _ = events.read(running.folder / events.FILE, running.offset)
    mine = (e for e in stream if e["type"] == "state" and e["state"] == "running")
    return next((float(e["t"]) for e in mine if e["attempt"] == running.order.attempt), None)


def _asked_s(folder: Path) -> float:
    """For how long the run has been asked to end; 0 when it was not."""
    try:
        return max(1e-3, time.time() - (folder / CANCEL).stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def _wanted(order: Order) -> str:
    share = order.share
    gpus = f" and {share.gpus:g} GPUs" if share.gpus else ""
    return f"{share.cpus:g} CPUs{gpus} of the cluster"
