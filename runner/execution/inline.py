"""`--local`: attempts run in this process, one after the other. For debugging and for machines without ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runner.execution import attempt
from runner.execution.failures import Stop
from runner.execution.order import Order, Outcome
from runner.execution.pool import SoloPool
from runner.plan.capacity import Capacity, local_capacity


class Inline:
    """Runs each order where it is submitted. ``hard`` is the last resort when a job does not stop."""

    name = "inline"
    spare: frozenset[int] = frozenset()

    def __init__(self, *, hard: Callable[[Stop], None]) -> None:
        self._hard = hard
        self._done: list[tuple[Order, Outcome]] = []

    def capacity(self) -> Capacity:
        """This machine."""
        return local_capacity()

    def submit(self, order: Order) -> None:
        """Carry the order out to its end."""
        workers = order.share.workers
        outcome = attempt.carry_out(order, pool=lambda tools: SoloPool(workers, tools.check), hard=self._hard)
        self._done.append((order, outcome))

    def finished(self, *, wait_s: float) -> Sequence[tuple[Order, Outcome]]:
        """What was carried out since the last call; there is nothing to wait for."""
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Nothing was started."""
