"""What ends a run that learns nothing: a loss or gradient that is no number, a gradient of 0, a loss that runs away."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from runner.schema.errors import JobError

# fp16 gradients in a row that are no number: the scaler skips such a step and halves its scale, 1 after 16 (of 65,536)
OVERFLOWS = 20
ZEROS = 3  # first steps that must have a gradient; later ones may have learned all there is
# A loss runs away when the mean of 20 steps is 3 nats above the lowest such mean: perplexity 20 times as high. Twenty
# steps even out single documents; a corpus that turns from code to verse goes up by 2 nats, a whole model at 10 times
# its rate by 4 and more, and it does not come back. A run that breaks at once has no such mean before: it ends when
# each of 20 steps is 3 nats above the first, which nothing was learned before.
WINDOW = 20
NATS = 3.0
REMEDIES = ["lower train.learning_rate", "lengthen train.warmup", "look at the texts with `runner explain data`"]


class Stops:
    """Holds each step against the ones before."""

    def __init__(self, *, precision: str) -> None:
        self._most = OVERFLOWS if precision == "fp16" else 0
        *some, last = REMEDIES if precision == "fp32" else [*REMEDIES[:2], "set precision: fp32"]
        self._remedy = f"{', '.join(some)}, or {last}"
        self._overflows = 0
        self._last: deque[float] = deque(maxlen=WINDOW)
        self._lowest = math.inf
        self._first: float | None = None

    def begin(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """What was before the run goes on."""
        for row in rows:
            self._mean(row["loss"])

    def check(self, step: int, *, loss: float, grad_norm: float) -> None:
        """Step ``step``, counted from 1. Raises JobError (NaN)."""
        if not math.isfinite(loss):
            raise JobError(f"the loss became {loss} at step {step}: {self._remedy}", failure="NaN")
        self._overflows = 0 if math.isfinite(grad_norm) else self._overflows + 1
        if self._overflows > self._most:
            raise JobError(
                f"the gradient became {grad_norm} at step {step}, loss {loss:.4g}: {self._remedy}", failure="NaN"
            )
        if grad_norm == 0 and step <= ZEROS:
            raise JobError(
                f"nothing is learned: the gradient is exactly 0 at step {step}, loss {loss:.4g}; look at "
                "adapter.target_modules and at what is masked (`runner explain data`)",
                failure="NaN",
            )
        mean = self._mean(loss)
        if mean is not None and (before := self._away(mean)):
            raise JobError(
                f"the loss runs away: {mean:.4g} over the last {WINDOW} steps at step {step}, and {before}: "
                f"{self._remedy}",
                failure="NaN",
            )

    def _away(self, mean: float) -> str | None:
        """What the loss was, where it is far above."""
        if mean > self._lowest + NATS:
            return f"{self._lowest:.4g} over {WINDOW} before"
        assert self._first is not None, "a mean has a first step"
        return f"{self._first:.4g} at the first step" if min(self._last) > self._first + NATS else None

    def _mean(self, loss: float) -> float | None:
        self._last.append(loss)
        self._first = loss if self._first is None else self._first
        if len(self._last) < WINDOW:
            return None
        mean = math.fsum(self._last) / WINDOW
        self._lowest = min(self._lowest, mean)
        return mean
