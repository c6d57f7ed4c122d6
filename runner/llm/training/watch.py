"""Every step is written down, told, timed and held against what training should look like."""

from __future__ import annotations

import math
import time
from typing import Any

from runner.llm.packing.step import Step
from runner.llm.training.journal import Journal
from runner.llm.training.meter import Meter
from runner.llm.training.pace import LOSS
from runner.llm.training.samples import SAMPLES
from runner.llm.training.stops import Stops
from runner.tell import Tell

Row = dict[str, Any]
SHOWN = 80  # characters of an answer in the log; all are in the history
TOLD_S = 0.1  # between two steps whose figures become events, at least: small models make a hundred steps a second


class Watch:
    """What is known of the step that was done last."""

    def __init__(
        self,
        *,
        total: int,
        journal: Journal,
        meter: Meter,
        stops: Stops,
        tell: Tell,
    ) -> None:
        self._total = total
        self._journal = journal
        self._meter = meter
        self._stops = stops
        self._tell = tell
        self._told = 0.0
        self._step: Step | None = None
        self._row: Row = {}
        self._speed: Row = {}

    def begin(self, step: Step, *, began: float) -> None:
        """Before its first forward pass; ``began`` is when its data was asked for, by `time.perf_counter`."""
        self._step = step
        self._meter.begin(began)

    def end(self, number: int, *, loss: float, grad_norm: float, rate: float) -> None:
        """After step ``number``, counted from 1. Raises JobError (NaN)."""
        step = self._step
        assert step is not None and number == step.number + 1, "a step ends that did not begin"
        self._row = {
            "step": number,
            "loss": finite(loss),
            "grad_norm": finite(grad_norm),
            "learning_rate": rate,
            "tokens": step.tokens,
            "targets": step.targets,
        }
        self._speed = {"step": number, **self._meter.end(step)}
        self._journal.add(self._row, self._speed)
        self._stops.check(number, loss=loss, grad_norm=grad_norm)
        self._say(number)

    def row(self) -> Row:
        """The last step's figures that are the same on every machine."""
        return {name: value for name, value in self._row.items() if name != "step"}

    def shown(self) -> Row:
        """All figures of the last step that are numbers."""
        return {name: value for name, value in {**self._row, **self._speed}.items() if value is not None}

    def measured(self, number: int, found: Row) -> Row:
        """Tell what was measured after step ``number``; its figures as curves are named."""
        figures = {name: value for name, value in found.items() if isinstance(value, int | float)}
        for name, value in figures.items():
            self._tell.metric(name, value)
        said = [f"step {number} of {self._total}"]
        said += [f"loss {self._row['loss']:.4g}"] if self._row else []
        if LOSS in found:
            said.append(f"validation loss {found[LOSS]:.4g} (perplexity {math.exp(min(found[LOSS], 99)):.4g})")
        if self._speed:
            said.append(f"{self._speed['tokens_per_s']:,.0f} tokens/s")
        left = self._meter.left_s(self._total - number)
        said += [f"{duration(left)} left"] if left else []
        self._tell.log(", ".join(said))
        for one in found.get(SAMPLES, [])[:1]:
            self._tell.log(f"asked {_short(one['prompt'])}, it answers {_short(one['answer'])}")
        return {f"eval_{name.removeprefix('validation_')}": value for name, value in figures.items()}

    def sync(self) -> None:
        """Bring what was written to the disk."""
        self._journal.sync()

    def _say(self, number: int) -> None:
        left = self._meter.left_s(self._total - number)
        said = f"steps, loss {self._row['loss']:.3f}"
        self._tell.progress(number, self._total, f"{said}, {duration(left)} left" if left else said)
        now = time.monotonic()
        if now - self._told < TOLD_S and number < self._total:
            return
        self._told = now
        for name, value in self.shown().items():
            if name != "step":
                self._tell.metric(name, value)


def finite(value: float) -> float | None:
    """As JSON can say it; fp16 gradients may be no numbers."""
    return value if math.isfinite(value) else None


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 3] + "...")


def duration(seconds: float) -> str:
    """In words: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
