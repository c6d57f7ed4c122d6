"""One attempt, carried out without an apply around it."""

from __future__ import annotations

from pathlib import Path

from runner.execution import attempt
from runner.execution.attempt import Crew
from runner.execution.order import Order
from runner.execution.pool import SoloPool
from runner.execution.share import share_of
from runner.execution.team import SoloTeam
from runner.plan.capacity import local_capacity
from tests.execution import toys
from tests.execution.helpers import no_last_resort, planned, spec


def test_a_stream_that_cannot_be_written_is_the_outcome(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, spec())
    (step,) = plan.steps
    order = Order(
        step=step,
        store=str(store.root),
        run="toy.00000000.1",  # nobody made its folder
        attempt=1,
        version="v1",
        began=0.0,
        share=share_of(step, local_capacity()),
        timeout_s=60.0,
        executor="inline",
        job=toys.write,
    )
    outcome = attempt.carry_out(
        order, crew=lambda tools: Crew(pool=SoloPool(1, tools.check), team=SoloTeam()), hard=no_last_resort
    )
    assert (outcome.state, outcome.failure, outcome.exit_code) == ("failed", "NotFound", 1)
    assert "events.ndjson" in outcome.message
