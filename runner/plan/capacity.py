"""Capacity: what a machine or cluster has, and whether a step fits in. Checked first, for nothing may wait for ever."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.plan.step import Step

GB = 10**9
CGROUPS = Path("/sys/fs/cgroup")
DRIVER = Path("/proc/driver/nvidia/gpus")
DEVICES = "/dev/nvidia"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine."""

    cpus: int
    memory_gb: float  # 10^9 bytes
    gpus: Mapping[str, int] = field(default_factory=dict)  # type -> how many, e.g. {"A100-80G": 2}


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """All machines at hand."""

    nodes: tuple[Node, ...]
    what: str = "the cluster"  # in messages: "the cluster", "this machine"

    def __str__(self) -> str:
        gpus: dict[str, int] = {}
        for node in self.nodes:
            for kind, count in node.gpus.items():
                gpus[kind] = gpus.get(kind, 0) + count
        has = [f"{count} x {kind}" for kind, count in sorted(gpus.items())] or ["no GPU"]
        has += [
            f"{sum(node.cpus for node in self.nodes)} CPUs",
            f"{sum(n.memory_gb for n in self.nodes):.0f} GB memory",
        ]
        nodes = f" on {len(self.nodes)} machines" if len(self.nodes) > 1 else ""
        return f"{self.what} has {', '.join(has)}{nodes}"


def check(step: Step, capacity: Capacity) -> str | None:
    """Why ``step`` can never run on ``capacity``, or None when it fits on the idle machines."""
    need = step.spec["compute"]
    workers = int(need["workers"])
    if need["gpus"] > 1 and not float(need["gpus"]).is_integer():
        return f"{step.name}: compute.gpus above 1 must be whole, got {need['gpus']:g}"
    places = sum(_places(node, need) for node in capacity.nodes)
    if places >= workers:
        return None
    return f"{step.name}: needs {_wanted(need)}, {capacity}"


def _places(node: Node, need: Mapping[str, Any]) -> float:
    """How many workers fit on an idle node."""
    fits = math.inf
    if need["cpus"]:  # left out: the workers share what there is
        fits = min(fits, node.cpus // need["cpus"])
    if need["memory_gb"]:
        fits = min(fits, node.memory_gb // need["memory_gb"])
    gpus = sum(count for kind, count in node.gpus.items() if _is(kind, need["accelerator"]))
    if need["gpus"] >= 1:
        fits = min(fits, gpus // need["gpus"])
    elif need["gpus"] > 0:
        fits = min(fits, gpus * math.floor(1 / need["gpus"]))
    elif need["accelerator"] and not gpus:
        fits = 0
    return fits


def _is(kind: str, wanted: str | None) -> bool:
    """Whether a GPU of type ``kind`` will do: `A100` takes an `A100-80G` too, not the other way round."""
    return wanted is None or f"{kind}-".upper().startswith(f"{wanted}-".upper())


def _wanted(need: Mapping[str, Any]) -> str:
    parts = []
    if need["gpus"] or need["accelerator"]:
        parts.append(f"{need['gpus'] or 1:g} x {need['accelerator'] or 'GPU'}")
    if need["cpus"]:
        parts.append(f"{need['cpus']} CPUs")
    if need["memory_gb"]:
        parts.append(f"{need['memory_gb']:g} GB memory")
    workers = f" for each of {need['workers']} workers" if need["workers"] > 1 else ""
    return ", ".join(parts) + workers


def local_capacity() -> Capacity:
    """What this machine gives this process: affinity and cgroup limits count, no command is run."""
    node = Node(cpus=_cpus(), memory_gb=_memory() / GB, gpus=_gpus())
    return Capacity(nodes=(node,), what="this machine")


def _cpus() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(CGROUPS / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _memory() -> int:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [_read(CGROUPS / "memory.max"), _read(CGROUPS / "memory" / "memory.limit_in_bytes")]
    return min([total, *(int(limit) for limit in limits if limit.isdigit())])


def _gpus() -> dict[str, int]:
    """GPUs whose device file is here and that the environment does not hide."""
    found: dict[str, int] = {}
    for information in sorted(DRIVER.glob("*/information")):
        text = _read(information)
        minor = re.search(r"Device Minor:\s*(\d+)", text)
        model = re.search(r"Model:\s*(.+)", text)
        if model and minor and Path(f"{DEVICES}{minor[1]}").exists():
            kind = gpu_type(model[1])
            found[kind] = found.get(kind, 0) + 1
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not found:
        return found
    left = len([name for name in visible.split(",") if name.strip() not in {"", "-1", "NoDevFiles"}])
    return {kind: min(count, left) for kind, count in found.items() if left}


def gpu_type(model: str) -> str:
    """Short type of a GPU: `NVIDIA A100-SXM4-80GB` is `A100-80G`, `NVIDIA H200` is `H200`."""
    words = [word for word in re.split(r"[\s-]+", model) if word not in {"NVIDIA", "Tesla", "GeForce", "Quadro"}]
    name = words[:2] if words[0] == "RTX" else words[:1]
    memory = [word[:-1] for word in words if re.fullmatch(r"\d+GB", word)]
    return "-".join(name + memory[:1])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
