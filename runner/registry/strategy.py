"""How several processes share the training of one model: the plainest way whose forecast fits. Without torch.

- `ddp` keeps all in each process and adds up gradients (Li et al. 2020, PyTorch Distributed).
- `fsdp2` and `zero3` share weights, gradients and the optimiser's state, and gather a layer's weights while it computes
  (Zhao et al. 2023, PyTorch FSDP; Rajbhandari et al. 2020, ZeRO, stage 3).
- `zero2` shares gradients and the optimiser's state and keeps the weights in each process (ZeRO, stage 2).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from runner.schema.errors import PlanError
from runner.schema.words import size

Name = Literal["none", "ddp", "fsdp2", "zero2", "zero3"]
Offload = Literal["none", "optimizer", "all"]
DEEPSPEED: Mapping[int, Name] = {2: "zero2", 3: "zero3"}  # by stage
BUCKET = 5 * 10**7  # gradients that are added up in one go, 200 MB: 2 ms at 100 GB/s, long beside a call's 20 us
# What cannot be done with an optimiser, and why
REFUSED: Mapping[tuple[str, str], str] = {
    ("zero2", "adafactor"): "it would see one flat vector where adafactor needs the rows and columns of each matrix",
    ("zero3", "adafactor"): "it would see one flat vector where adafactor needs the rows and columns of each matrix",
    ("fsdp2", "adafactor"): "transformers' adafactor takes no shared tensors (5.19)",
    ("fsdp2", "adamw_8bit"): "the 8-bit optimisers of bitsandbytes take no shared tensors",
    ("fsdp2", "paged_adamw_8bit"): "the 8-bit optimisers of bitsandbytes take no shared tensors",
}
# The plainest first; torch's own come before those of a further package
IN_ORDER: Mapping[Offload, tuple[Name, ...]] = {
    "none": ("ddp", "fsdp2"),
    "optimizer": ("zero2", "zero3"),
    "all": ("fsdp2", "zero3"),
}
# Offloading that a strategy has: what stays away is refused
OFFLOADS: Mapping[str, tuple[Offload, ...]] = {
    "ddp": ("none",),
    "fsdp2": ("none", "all"),
    "zero2": ("none", "optimizer"),
    "zero3": ("none", "optimizer", "all"),
}


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What one process would hold if it trained the model alone."""

    forecast: Mapping[str, Any]  # of `runner.registry.forecast`
    layers: int
    working: int  # bytes of activations and logits, see `working`


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen, and why, in words."""

    name: Name
    why: str
    offload: Offload = "none"
    fits: bool | None = None  # None: the forecast or the memory is not known
    needs: Mapping[Name, int] = field(default_factory=dict)  # bytes of one process, by what came into question


def choose(
    wanted: str,
    *,
    processes: int,
    optimizer: str = "adamw",
    offload: Offload = "none",
    stage: int | None = None,
    demand: Demand | None = None,
    memory: int | None = None,
) -> Choice:
    """The strategy for ``processes`` processes that have ``memory`` bytes each; None: not known yet.

    ``wanted`` is auto or the name of one, ``stage`` that of the user's own DeepSpeed configuration where one is given.
    Raises PlanError for what cannot be had together.
    """
    if processes == 1:
        return _alone(wanted, offload=offload, stage=stage)
    if stage is not None:
        wanted = _by_stage(wanted, stage)
    if wanted == "auto":
        names = [one for one in IN_ORDER[offload] if (one, optimizer) not in REFUSED]
    else:
        _must_be_had(wanted, optimizer=optimizer, offload=offload)
        names = [cast(Name, wanted)]
    if not names:
        raise PlanError(
            f"distribution.offload {offload!r} cannot be had with train.optimizer {optimizer!r} in {processes} "
            "processes: set offload to none, or another optimizer"
        )
    found: dict[Name, int] = {}
    if demand is not None:
        found = {name: needs(name, demand, processes=processes, offload=offload) for name in names}
    return _plainest(names, found, asked=wanted != "auto", offload=offload, processes=processes, memory=memory)


def stage_of(path: Path) -> int | None:
    """The ZeRO stage that a DeepSpeed configuration names. Raises PlanError for a file that is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PlanError(f"distribution.deepspeed: {path.name!r} cannot be read as JSON ({error}): mend it") from None
    zero = found.get("zero_optimization", {}) if isinstance(found, dict) else None
    if not isinstance(zero, dict):
        raise PlanError(
            f"distribution.deepspeed: {path.name!r} must hold an object, and so must its zero_optimization; mend it"
        )
    value = zero.get("stage")
    return None if value is None or value == "auto" else cast(int, value)  # `choose` refuses what is no stage


def working(forecast: Mapping[str, Any], *, checkpointing: str, chunked: bool) -> int:
    """Bytes of activations and logits; ``checkpointing`` is counted as on unless it is off."""
    kept = "kept" if checkpointing == "off" else "checkpointed"
    return int(forecast["activations"][kept] + forecast["logits"]["chunked" if chunked else "whole"])


def needs(name: Name, demand: Demand, *, processes: int, offload: Offload = "none") -> int:
    """Bytes that training takes of the device of one process.

    Trained weights are in fp32, whatever the products are in. DDP adds a copy of the gradients, in the buckets that
    are sent; ZeRO fp32 copies of its share of the weights, which wait with the optimiser's state, and two buckets.
    Weights that are shared come together again a layer at a time, with the next one under way; quantised ones are not.
    """
    found = demand.forecast
    trained = 4 * found["trainable_parameters"]
    weights = 4 * found["parameters"] if found["adapter"] == "none" else found["weights"]
    state = found["weights"] + found["gradients"] + found["optimizer"] - weights - trained
    if name in {"none", "ddp"}:
        return int(weights + (1 if name == "none" else 2) * trained + state + demand.working)
    ours = name == "fsdp2"
    state = 0 if offload != "none" else state + (0 if ours else trained)
    beside = demand.working + (0 if ours else 2 * 4 * min(BUCKET, found["trainable_parameters"]))
    if name == "zero2":
        return int(weights + (trained + state) / processes + beside)
    shared = trained if found["quantize"] != "none" else weights
    at_once = weights - shared + 2 * shared / demand.layers
    return int(at_once + (0 if offload == "all" else (shared + trained + state) / processes) + beside)


def _alone(wanted: str, *, offload: Offload, stage: int | None) -> Choice:
    if wanted not in {"auto", "ddp"} or offload != "none" or stage is not None:
        what = f"distribution.strategy {wanted!r}" if wanted not in {"auto", "ddp"} else "distribution.offload"
        what = "distribution.deepspeed" if stage is not None else what
        raise PlanError(f"{what} needs several processes: set compute.workers to 2 or more, or leave it out")
    return Choice(name="none", why="one process: there is nothing to share")


def _by_stage(wanted: str, stage: int) -> str:
    name = DEEPSPEED.get(stage) if type(stage) is int else None
    if name is None:
        raise PlanError(f"distribution.deepspeed: zero_optimization.stage must be 2 or 3, got {stage!r}")
    if wanted not in {"auto", name}:
        raise PlanError(
            f"distribution.strategy is {wanted!r} and the file of distribution.deepspeed says stage {stage}: set "
            f"strategy to {name}, or change the stage"
        )
    return name


def _must_be_had(name: str, *, optimizer: str, offload: Offload) -> None:
    if why := REFUSED.get((name, optimizer)):
        raise PlanError(
            f"distribution.strategy {name!r} cannot train with train.optimizer {optimizer!r}: {why}; set another"
        )
    if offload not in OFFLOADS[name]:
        takers = [one for one, has in OFFLOADS.items() if offload in has]
        raise PlanError(
            f"distribution.strategy {name!r} has no offload {offload!r}, only {', '.join(OFFLOADS[name])}: "
            f"set strategy to {' or '.join(takers)}"
        )


def _plainest(
    names: list[Name],
    found: Mapping[Name, int],
    *,
    asked: bool,
    offload: Offload,
    processes: int,
    memory: int | None,
) -> Choice:
    """The first of ``names`` whose need, in ``found``, is met; else the one that needs the least."""
    begin = "as wanted; " if asked else ""
    if not found or memory is None:
        what = "the forecast of its memory is not known yet"
        if found:
            what = "the memory of a process is not known yet: compute.accelerator tells it, such as A100-80G"
        why = begin + ("" if asked else f"the plainest of {', '.join(names)}; ") + what
        return Choice(name=names[0], why=why, offload=offload, needs=found)
    for at, name in enumerate(names):
        if found[name] <= memory:
            others = "".join(f"{one} would need {size(found[one])}, " for one in names[:at])
            shared = "" if name == "ddp" else f" shared among {processes}"
            need = f"{name}{shared} needs at least {size(found[name])}"  # more where activations can be kept
            why = f"{begin}{others}{need} of the {size(memory)} that a process has"
            return Choice(name=name, why=why, offload=offload, fits=True, needs=found)
    name = min(names, key=lambda one: found[one])
    more = "" if offload != "none" else "; distribution.offload leaves some of it in the memory of the host"
    least = f"{name} needs at least {size(found[name])}" + ("" if asked else ", the least of all")
    why = f"{begin}{least}, and a process has {size(memory)}{more}"
    return Choice(name=name, why=why, offload=offload, fits=False, needs=found)
