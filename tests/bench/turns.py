"""Contenders of a benchmark, each in a process of its own, taking turns step by step.

The speed of a shared machine drifts by half within minutes, so whole passes one after another compare the minutes, not
the contenders. Here whoever has done the least of its pass does the next step (a few seconds), so that all see the same
machine; a pass is repeated, and each step's least time counts.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Step = dict[str, Any]  # "share" of the pass that it was, and whatever the contender tells of it
Contender = tuple[Callable[..., None], tuple[Any, ...]]  # called with its end of a pipe and these; calls ``serve``


@dataclass(frozen=True, kw_only=True)
class Passes:
    """What one contender did."""

    steps: list[list[Step]]  # [rounds][steps]
    loading_peak_gb: float

    def seconds(self, clock: str) -> float:
        """Of one pass, each step at its best. ``clock`` is "wall_s" or "cpu_s"."""
        return float(sum(min(step[clock] for step in same) for same in zip(*self.steps, strict=True)))

    def total(self, key: str) -> float:
        """Sum of ``key`` over one pass."""
        return float(sum(step[key] for step in self.steps[0]))

    @property
    def peak_gb(self) -> float:
        """Most resident memory while working."""
        return float(max(step["peak_gb"] for steps in self.steps for step in steps))


def serve(link: Connection, work: Callable[[], Iterator[Step]], *, warm: Callable[[], Any]) -> None:
    """In a contender's process: warm up, then do a step of ``work`` whenever asked. Shares of a pass add up to 1."""
    warm()
    link.send(peak_gb())
    steps: Iterator[Step] = iter(())
    while (word := link.recv()) != "stop":
        if word == "start":
            Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
            steps = work()
        began, cpu = time.perf_counter(), time.process_time()
        step = next(steps)
        spent = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
        link.send({**step, **spent, "peak_gb": peak_gb()})


def race(contenders: Mapping[str, Contender], *, rounds: int) -> dict[str, Passes]:
    """All contenders, ``rounds`` passes each."""
    context = multiprocessing.get_context("spawn")
    links: dict[str, Connection] = {}
    processes, loading = [], {}
    for name, (task, inputs) in contenders.items():
        links[name], theirs = context.Pipe()
        processes.append(context.Process(target=task, args=(theirs, *inputs), daemon=True))
        processes[-1].start()
        theirs.close()
        loading[name] = links[name].recv()
    done: dict[str, list[list[Step]]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, steps in _round(links).items():
            done[name].append(steps)
            took = sum(step["wall_s"] for step in steps)
            print(f"round {number + 1}: {name}: {took:.1f} s in {len(steps)} steps", file=sys.stderr, flush=True)
    for link in links.values():
        link.send("stop")
    for process in processes:
        process.join()
    return {name: Passes(steps=steps, loading_peak_gb=loading[name]) for name, steps in done.items()}


def _round(links: Mapping[str, Connection]) -> dict[str, list[Step]]:
    steps: dict[str, list[Step]] = {name: [] for name in links}
    shares = dict.fromkeys(links, 0.0)
    while running := [name for name in links if shares[name] < 1 - 1e-6]:
        name = min(running, key=lambda one: shares[one])
        links[name].send("go" if steps[name] else "start")
        steps[name].append(links[name].recv())
        shares[name] += steps[name][-1]["share"]
    return steps


def peak_gb() -> float:
    """Most resident memory since the peak was last cleared."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9
