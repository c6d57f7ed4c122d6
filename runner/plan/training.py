"""What training a language model will hold in memory, and how several processes share it. Estimates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.plan.capacity import local_capacity
from runner.plan.step import Input
from runner.registry import demand, strategy
from runner.registry.demand import RESERVE, Shape, chunks
from runner.registry.family import Resolved
from runner.registry.strategy import Choice

GB = 10**9
DEEPSPEED = "distribution.deepspeed"
GPU_GB: Mapping[int, tuple[str, ...]] = {  # memory of those whose type does not say it
    180: ("B200",),
    141: ("H200",),
    80: ("H100",),
    48: ("L40S", "L40"),
    40: ("A100",),
    24: ("L4", "A10G", "A10", "RTX-4090", "RTX-3090"),
    16: ("V100", "T4"),
}


def training(
    wanted: Mapping[str, Any], *, compute: Mapping[str, Any], inputs: Sequence[Input], models: Sequence[Resolved]
) -> dict[str, Any]:
    """Keys: `strategy` {name, why}; `forecast`, with `process`, `memory` and `fits` of one, where the model is known.

    ``wanted`` is what ``Job.training`` says. Raises PlanError for a strategy that cannot be had.
    """
    own = next((entry.path for entry in inputs if entry.field == DEEPSPEED), None)
    stage = None if own is None else strategy.stage_of(Path(own))
    processes, memory = compute["workers"], _memory(compute)
    if not models:
        asked = {name: wanted[name] for name in ("optimizer", "offload")}
        choice = strategy.choose(wanted["strategy"], processes=processes, stage=stage, memory=memory, **asked)
        return _told(choice)
    found = demand.settle(_shape(wanted, compute, models[0].facts, stage), processes=processes, memory=memory)
    told = _told(found.choice)
    if found.demand is not None and found.need is not None:
        fits = None if memory is None else found.need <= memory
        told["forecast"] = {**found.demand.forecast, "process": found.need, "memory": memory, "fits": fits}
    return told


def _told(choice: Choice) -> dict[str, Any]:
    return {"strategy": {"name": choice.name, "why": choice.why}}


def _shape(wanted: Mapping[str, Any], compute: Mapping[str, Any], facts: Mapping[str, Any], stage: int | None) -> Shape:
    precision = wanted["precision"]
    if precision == "auto":  # most GPUs have bf16, and few CPUs compute in it
        precision = "bf16" if compute["gpus"] else "fp32"
    chunked = wanted["chunked"] and chunks(facts)
    return Shape(facts=facts, stage=stage, **{**wanted, "precision": precision, "chunked": chunked})


def _memory(compute: Mapping[str, Any]) -> int | None:
    """Bytes that one process may fill of its device, as far as the spec and this machine say."""
    if compute["gpus"]:
        whole = _of_gpu(compute["accelerator"] or _here())
    elif compute["memory_gb"]:
        whole = int(compute["memory_gb"] * GB)
    else:
        whole = int(max(node.memory_gb for node in local_capacity().nodes) * GB / compute["workers"])
    return None if whole is None else max(0, whole - RESERVE)


def _here() -> str:
    """The type of this machine's GPUs where they are all of one."""
    kinds = {kind for node in local_capacity().nodes for kind in node.gpus}
    return kinds.pop() if len(kinds) == 1 else ""


def _of_gpu(kind: str) -> int | None:
    said = re.search(r"-(\d+)G", kind)
    known = int(said[1]) if said else next((gb for gb, kinds in GPU_GB.items() if kind.upper() in kinds), None)
    return None if known is None else known * GB
