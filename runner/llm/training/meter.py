"""How fast steps are, in tokens that are no padding, and how that compares with what the device can multiply."""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from runner import ranks
from runner.llm.packing.step import Step

LAST = 50  # steps that the time left is told by


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The rate of large products that was measured on this device, in FLOP/s."""

    rate: float
    device: str


class Meter:
    """Times the steps of one process; the tokens it counts are those of all."""

    def __init__(self, *, operations: Callable[[Step], float] | None, peak: Peak | None, device: str) -> None:
        self._operations = operations
        self._peak = peak
        self._gpu = device == "cuda"
        self._began = 0.0
        self._last: deque[float] = deque(maxlen=LAST)

    def begin(self, began: float) -> None:
        """A step's data was asked for at ``began``, by `time.perf_counter`."""
        self._began = began

    def end(self, step: Step) -> dict[str, Any]:
        """The step is done: its figures. `mfu` is the share of the measured rate that went into ``operations``."""
        seconds = time.perf_counter() - self._began
        self._last.append(seconds)
        rate = step.tokens / seconds
        found = {
            "seconds": seconds,
            "tokens_per_s": rate,
            "packing_efficiency": step.tokens / step.computed,
            "memory_gb": self._memory_gb(),
        }
        if self._operations is not None and self._peak is not None:
            found["mfu"] = self._operations(step) / seconds / (self._peak.rate * ranks.size())
        return found

    def left_s(self, steps: int) -> float | None:
        """Seconds that ``steps`` more take, by the last ones; None before the second."""
        return median(self._last) * steps if len(self._last) > 1 else None

    def _memory_gb(self) -> float:
        """The most that this process took so far, of the device it computes on."""
        if self._gpu:
            return torch.cuda.max_memory_allocated() / 1e9
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
