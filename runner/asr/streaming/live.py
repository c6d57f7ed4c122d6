"""A job that streams its recordings: what takes the place of hearing them in windows, and what the report gains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from runner.asr import sweep
from runner.asr.batches import Plan
from runner.asr.pieces import Setup
from runner.asr.recordings import Clip
from runner.asr.sizing import CPU_S
from runner.asr.spool import Spool
from runner.asr.streaming import figures, offline
from runner.asr.streaming.collect import StreamCollector
from runner.asr.streaming.settings import Settings
from runner.asr.streaming.simulation import Simulation
from runner.asr.sweep import Shape, Sweep
from runner.context import Context, LedgerLine, Result

Fields = dict[str, Any]
WHOLE_S = 1e8  # three years: every recording is one window to the plan
SPEED = "streaming.json"


@dataclass(frozen=True, kw_only=True)
class Live:
    """``shape`` and ``setup`` are those of the job without streaming."""

    settings: Settings
    setup: Setup
    shape: Shape
    model_type: str
    compare: bool  # whether the recordings are transcribed offline, too

    def prepare(self, ctx: Context, clips: list[Clip]) -> Sweep:
        """As `sweep.prepare`, but a recording stays whole: a worker cuts it as its session asks."""
        whole = replace(self.shape, window_s=WHOLE_S, batch_s=self.shape.batch_s or CPU_S)
        return sweep.prepare(ctx, self.setup, clips, shape=whole, model_type=self.model_type)

    def hear(self, ctx: Context, heard: Sweep, spool: Spool) -> None:
        """Stream all recordings that are not done yet."""
        collector = StreamCollector(spool, heard.layout, heard.found, self.setup)
        sweep.hear(ctx, heard, spool, collector, worker=partial(Simulation, self.settings))

    def report(self, ctx: Context, heard: Sweep, clips: list[Clip], result: Result) -> Result:
        """``result`` with what is known of the streams."""
        spool = heard.spool(ctx)
        try:
            found = figures.gather(spool, heard.found)
            extra = self._compared(ctx, clips, spool) if self.compare else {}
        finally:
            spool.close()
        figures.write(found, ctx.records / SPEED)
        return replace(
            result,
            metrics={**result.metrics, **found.metrics(), **extra},
            ledger=_ledger(ctx, heard, windows=found.windows),
            tables=(*result.tables, figures.table(found, self.settings, extra)),
        )

    def _compared(self, ctx: Context, clips: list[Clip], spool: Spool) -> Fields:
        return offline.compare(ctx, self.setup, clips, spool, shape=self.shape, model_type=self.model_type).metrics()


def _ledger(ctx: Context, heard: Sweep, *, windows: int) -> tuple[LedgerLine, ...]:
    """The job's plan counted recordings; what was computed were windows, one after another."""
    each = Plan(order=np.arange(windows), bounds=np.arange(windows + 1), useful=0, padded=0)
    lines = replace(heard, plan=each).ledger(ctx)
    why = "a stream's windows come one at a time"
    return tuple(replace(line, applied=False, why=why) if line.what == "batching" else line for line in lines)
