"""What one step takes of a machine or cluster, from its `compute` block."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from runner.plan.capacity import Capacity
from runner.plan.step import Step

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True)
class Share:
    """Resources of one step, for each of its workers."""

    workers: int
    cpus: float  # reserved; a fraction where more workers than cores share a machine
    threads: int
    gpus: float
    memory_gb: float  # 0: not limited
    accelerator: str | None

    def fits_beside(self, others: Iterable[Share], capacity: Capacity) -> bool:
        """Whether this step can start while ``others`` run. Alone it always can: capacity was checked before."""
        busy = list(others)
        every = [self, *busy]
        return not busy or (
            sum(s.workers * s.cpus for s in every) <= sum(n.cpus for n in capacity.nodes) + 1e-6
            and sum(s.workers * s.gpus for s in every) <= sum(sum(n.gpus.values()) for n in capacity.nodes) + 1e-6
            and sum(s.workers * s.memory_gb for s in every) <= sum(n.memory_gb for n in capacity.nodes)
        )


def share_of(step: Step, capacity: Capacity) -> Share:
    """The share of ``step``. With `cpus` left out, the workers divide the largest machine among them."""
    compute: dict[str, Any] = step.spec["compute"]
    workers = int(compute["workers"])
    if compute["cpus"]:
        cpus, threads = float(compute["cpus"]), int(compute["cpus"])
    else:
        cores = max(node.cpus for node in capacity.nodes)
        cpus = math.floor(cores / workers * 1e4) / 1e4  # ray counts CPUs in steps of 0.0001
        threads = max(1, cores // workers)
        cpus = float(threads) if cpus >= 1 else max(cpus, 1e-4)
    return Share(
        workers=workers,
        cpus=cpus,
        threads=threads,
        gpus=float(compute["gpus"]),
        memory_gb=float(compute["memory_gb"] or 0),
        accelerator=compute["accelerator"],
    )


def timeout_s(step: Step) -> float:
    """`compute.timeout` in seconds."""
    text: str = step.spec["compute"]["timeout"]
    return float(int(text[:-1]) * UNITS[text[-1]])
