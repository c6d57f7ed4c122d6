"""`--local`: attempts run in this process, one after the other. For debugging and for machines without ray. Only a
team has processes of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runner.execution import attempt
from runner.execution.attempt import Crew, Tools
from runner.execution.failures import Stop
from runner.execution.local_team import LocalTeam
from runner.execution.order import Order, Outcome
from runner.execution.pool import SoloPool
from runner.execution.team import SoloTeam
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
        outcome = attempt.carry_out(order, crew=lambda tools: _crew(order, tools), hard=self._hard)
        self._done.append((order, outcome))

    def finished(self, *, wait_s: float) -> Sequence[tuple[Order, Outcome]]:
        """What was carried out since the last call; there is nothing to wait for."""
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Nothing was started."""


def _crew(order: Order, tools: Tools) -> Crew:
    share = order.share
    several = share.workers > 1
    team = LocalTeam(share, timeout_s=order.timeout_s, check=tools.check) if several else SoloTeam()
    return Crew(pool=SoloPool(share.workers, tools.check), team=team)
