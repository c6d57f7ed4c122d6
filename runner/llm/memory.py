"""What training would take of the device's memory, by the registry's reckoning, against what there is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from runner import ranks
from runner.registry import demand
from runner.registry.demand import RESERVE, ROOM, STATE, Shape
from runner.registry.strategy import Choice
from runner.schema.errors import JobError, PlanError

LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of a control group, new and old
GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What follows from the forecast."""

    forecast: Mapping[str, Any]  # the registry's, with needs and memory in bytes; {}: not known
    choice: Choice  # how several processes share the work
    checkpointed: bool
    why: str  # of checkpointing


def settle(shape: Shape, *, memory: int) -> Settled:
    """Whether activations are kept, and how processes share the work, where each has ``memory`` bytes.

    Raises JobError (Infeasible) that names the longest row which fits, and what would help.
    """
    try:
        found = demand.settle(shape, processes=ranks.size(), memory=memory)
    except PlanError as error:
        raise JobError(str(error), failure="Infeasible") from error
    if found.demand is None or found.need is None:
        why = f"no forecast: {found.unknown}"
        return Settled(forecast={}, choice=found.choice, checkpointed=found.checkpointed, why=why)
    if found.need > memory:
        raise _too_much(shape, need=found.need, memory=memory, choice=found.choice)
    return Settled(
        forecast={**found.demand.forecast, "needs": found.need, "memory": memory},
        choice=found.choice,
        checkpointed=found.checkpointed,
        why=_why(shape, found.needed, memory),
    )


def available(device: str, *, limit: int | None = None) -> int:
    """Bytes that one process of this machine may fill: of its GPU, else of its share of the host, up to ``limit``.

    A host's are what the machine or its control group allows, not what happens to be free: the answer is the same in
    each attempt.
    """
    if device != "cpu":
        return max(0, torch.cuda.mem_get_info()[0] - RESERVE)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    groups = [path.read_text(encoding="ascii").strip() for name in LIMITS if (path := GROUPS / name).is_file()]
    whole = min([total, *(int(one) for one in groups if one.isdigit())])
    share = whole // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(0, min(share, limit or share) - RESERVE)


def longest(shape: Shape, choice: Choice, *, memory: int) -> int:
    """The longest row, a multiple of 8 tokens, that fits; 0 where none does. Need grows with the length."""
    again = shape.checkpointing != "off"
    low, high = 0, max(shape.facts["max_positions"], shape.seq_len) // 8
    while low < high:
        middle = (low + high + 1) // 2
        tried = replace(shape, seq_len=8 * middle)
        fits = demand.needs(tried, choice, processes=ranks.size(), checkpointed=again) <= memory
        low, high = (middle, high) if fits else (low, middle - 1)
    return 8 * low


def _too_much(shape: Shape, *, need: int, memory: int, choice: Choice) -> JobError:
    helps = {
        "optimize.checkpointing: auto": shape.checkpointing == "off",
        "optimize.loss_chunking: preferred": not shape.chunked and demand.chunks(shape.facts),
        "fewer batch.rows": shape.rows > 1,
        "adapter.type: lora": shape.rank is None,
        "quantize: nf4": shape.rank is not None and shape.quantize == "none" and not shape.facts["quantised"],
        "train.optimizer: adafactor": shape.rank is None and STATE[shape.optimizer] > 1 and choice.name == "none",
        "distribution.offload: all": choice.name in {"fsdp2", "zero3"} and choice.offload == "none",
    }
    would = ", ".join(name for name, new in helps.items() if new)
    most = longest(shape, choice, memory=memory)
    fits = f"the longest that fits is {most}" if most else "no length fits"
    todo = f"set batch.seq_len to {most} or less" if most else "take a larger device or a smaller model"
    also = f", or one of: {would}" if would else ""
    if shape.quantize != "none" and shape.facts["experts"] is not None:
        also += "; experts are not quantised, they are as wide as without"
    return JobError(
        f"batch.seq_len {shape.seq_len} (batch.rows {shape.rows}) needs about {_size(need)} of memory by the forecast "
        f"and this process has {_size(memory)}; {fits}: {todo}{also}",
        failure="Infeasible",
    )


def _why(shape: Shape, needed: Mapping[bool, int], memory: int) -> str:
    if shape.checkpointing != "auto":
        return "off" if shape.checkpointing == "off" else "asked for by the spec"
    kept = f"keeping all activations needs about {_size(needed[False])} of the {_size(memory)} that there are"
    return f"{kept}; computing them again {_size(needed[True])}" if needed[False] > ROOM * memory else kept


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
