"""A team placed by Ray Train: all of its processes are given room at once, on one machine or several."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from runner.context import Context
from runner.execution import team
from runner.execution.share import Share
from runner.execution.team import ADDRESS, Seat

SAY_AFTER_S = 15.0


class RayTeam:
    """``share.workers`` processes of the cluster; see ``runner.context.Team``."""

    def __init__(
        self, share: Share, *, timeout_s: float, log: Callable[[str], None], check: Callable[[], None]
    ) -> None:
        self.size = share.workers
        self._share = share
        self._timeout_s = timeout_s
        self._log = log
        self._check = check

    def run(self, work: Callable[[Context], Any], ctx: Context) -> Any:
        """Call ``work`` in each process; what it returned in the first."""
        # here alone: torch, pandas and pyarrow are 4 CPU-s, which a step that has a pool instead need not pay
        from runner.execution import ray_train  # noqa: PLC0415

        with team.seats(work, ctx, share=self._share, timeout_s=self._timeout_s) as seat:
            over = threading.Event()
            waiting = threading.Thread(target=self._say_what_it_waits_for, args=(seat, over), daemon=True)
            waiting.start()
            try:
                died = ray_train.fit(seat)
            finally:
                over.set()
                waiting.join()
            self._check()
            return team.answer(seat, died=died)

    def _say_what_it_waits_for(self, seat: Seat, over: threading.Event) -> None:
        while not over.wait(SAY_AFTER_S) and not (seat.room / ADDRESS).exists():
            self._log(f"waiting for {self.size} processes to be placed and ready")
