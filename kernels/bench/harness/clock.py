"""Times and memory of several engines on one GPU, taken in turn so that a change of clocks meets them all.

Each run is queued behind a pause of the device, so that what is timed is the device and not Python; inputs change from
run to run until they are too many for the L2 cache; forward and backward are parts of one run, parted by an event.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from runner.kernels.bench.harness.case import Inputs, leaves, outputs

PAUSE_CYCLES = 2_000_000  # about 1 ms: longer than it takes to queue forward and backward
RUNS = (10, 200)  # at least and at most, of an engine
SETS = 8  # of inputs, at most
MIB = 2**20


@dataclass(kw_only=True)
class Measured:
    """Milliseconds of each run by pass, and bytes beyond the inputs at the peak."""

    times: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    def summary(self, which: str) -> dict[str, float]:
        """Median, 20th and 80th percentile, runs."""
        times = sorted(self.times[which])
        low, *_, high = statistics.quantiles(times, n=5) if len(times) > 1 else times * 2
        numbers = {"median_ms": statistics.median(times), "p20_ms": low, "p80_ms": high}
        return {name: round(value, 6) for name, value in numbers.items()} | {"runs": len(times)}


@dataclass(kw_only=True)
class Engine:
    """A function with inputs of its own."""

    run: Callable[..., Any]
    sets: list[Inputs]
    gradients: bool
    measured: Measured = field(default_factory=Measured)
    _turn: int = 0
    _upstreams: dict[Any, Tensor] = field(default_factory=dict)

    def warm_up(self) -> None:
        """Compile what there is to compile, then take the memory of one more run."""
        for _ in range(2):
            self._once(None)
        torch.cuda.synchronize()
        self._once(self.measured.peaks)

    def round(self, runs: int) -> None:
        """Time some runs."""
        marks = [self._once(None) for _ in range(runs)]
        torch.cuda.synchronize()
        for start, middle, end in marks:
            found = {"forward": start.elapsed_time(middle)}
            if self.gradients:
                found |= {"backward": middle.elapsed_time(end), "both": start.elapsed_time(end)}
            for which, milliseconds in found.items():
                self.measured.times.setdefault(which, []).append(milliseconds)

    def _once(self, peaks: dict[str, int] | None) -> list[Any]:
        inputs = self.sets[self._turn % len(self.sets)]
        self._turn += 1
        marks: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda._sleep(PAUSE_CYCLES)
        marks[0].record()
        with torch.set_grad_enabled(self.gradients):
            ys = outputs(self.run(*inputs))
        marks[1].record()
        forward = torch.cuda.max_memory_allocated() - before
        if self.gradients:
            self._backward(ys, inputs)
        marks[2].record()
        if peaks is not None:
            peaks["forward"] = forward
            if self.gradients:
                peaks["backward"] = peaks["both"] = torch.cuda.max_memory_allocated() - before
        return marks

    def _backward(self, ys: list[Tensor], inputs: Inputs) -> None:
        wanted = [y for y in ys if y.requires_grad]
        into = [self._upstream(y) for y in wanted]
        torch.autograd.grad(wanted, leaves(inputs), into, allow_unused=True)

    def _upstream(self, y: Tensor) -> Tensor:
        """What comes in from above: of another memory than y, and made before the clock runs."""
        key = (tuple(y.shape), y.dtype, y.stride())
        if key not in self._upstreams:
            self._upstreams[key] = torch.randn_like(y) if y.ndim else torch.ones_like(y)
        return self._upstreams[key]


def take_turns(engines: dict[str, Engine], *, until: float, clock: Callable[[], float] = time.monotonic) -> None:
    """Time all engines round by round, each round from another one on, until enough runs or that time."""
    names = list(engines)
    number = 0
    while names:
        for shift in range(len(names)):
            engines[names[(number + shift) % len(names)]].round(RUNS[0] // 2)
        number += 1
        done = number * (RUNS[0] // 2)
        if done >= RUNS[1] or (done >= RUNS[0] and clock() >= until):
            return


def sets_needed(inputs: Inputs, cache_bytes: int) -> int:
    """How many sets of inputs are three times the cache."""
    size = sum(x.nbytes for x in inputs if isinstance(x, Tensor))
    return max(1, min(SETS, -(-3 * cache_bytes // max(size, 1))))
