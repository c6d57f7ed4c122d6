"""What training a language model will hold in memory, and how several processes share it. Estimates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.plan.capacity import local_capacity
from runner.plan.step import Input
from runner.registry import strategy
from runner.registry.family import Resolved
from runner.registry.forecast import forecast
from runner.registry.strategy import Demand

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
    found = _forecast(wanted, compute, models[0].facts) if models else None
    demand = None
    if found is not None:
        working = strategy.working(found, checkpointing=wanted["checkpointing"], chunked=wanted["chunked"])
        demand = Demand(forecast=found, layers=models[0].facts["layers"], working=working)
    own = next((entry.path for entry in inputs if entry.field == DEEPSPEED), None)
    memory = _memory(compute)
    choice = strategy.choose(
        wanted["strategy"],
        processes=compute["workers"],
        optimizer=wanted["optimizer"],
        offload=wanted["offload"],
        stage=None if own is None else strategy.stage_of(Path(own)),
        demand=demand,
        memory=memory,
    )
    told: dict[str, Any] = {"strategy": {"name": choice.name, "why": choice.why}}
    if demand is not None:
        one = strategy.needs(choice.name, demand, processes=compute["workers"], offload=choice.offload)
        fits = None if memory is None else one <= memory
        told["forecast"] = {**demand.forecast, "process": one, "memory": memory, "fits": fits}
    return told


def _forecast(wanted: Mapping[str, Any], compute: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """None where the weights do not show what it needs."""
    if wanted["rank"] is not None and facts["lora_width"] is None:
        return None
    precision = wanted["precision"]
    if precision == "auto":  # most GPUs have bf16, and few CPUs compute in it
        precision = "bf16" if compute["gpus"] else "fp32"
    sizes = {name: wanted[name] for name in ("seq_len", "batch", "rank", "quantize")}
    return forecast(facts, precision=precision, **sizes)


def _memory(compute: Mapping[str, Any]) -> int | None:
    """Bytes of one process's device, as far as the spec and this machine say."""
    if compute["gpus"]:
        return _of_gpu(compute["accelerator"] or _here())
    if compute["memory_gb"]:
        return int(compute["memory_gb"] * GB)
    return int(max(node.memory_gb for node in local_capacity().nodes) * GB / compute["workers"])


def _here() -> str:
    """The type of this machine's GPUs where they are all of one."""
    kinds = {kind for node in local_capacity().nodes for kind in node.gpus}
    return kinds.pop() if len(kinds) == 1 else ""


def _of_gpu(kind: str) -> int | None:
    said = re.search(r"-(\d+)G", kind)
    known = int(said[1]) if said else next((gb for gb, kinds in GPU_GB.items() if kind.upper() in kinds), None)
    return None if known is None else known * GB
