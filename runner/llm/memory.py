"""What training would take of the device's memory, by the registry's forecast, against what there is.

Trained weights, their gradients and AdamW's two moments are in fp32; under autocast, weights that are trained whole
have a 16-bit copy while the loss is computed. What a process holds besides - its libraries, a device's context - is in
``RESERVE``. All of it is an estimate: what does not fit by it is refused, what fits by it may still run out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from runner import ranks
from runner.registry import strategy
from runner.registry.forecast import forecast
from runner.registry.strategy import Choice, Demand, Offload
from runner.schema.errors import JobError, PlanError

LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of a control group, new and old
GROUPS = Path("/sys/fs/cgroup")
RESERVE = 6 * 10**8  # bytes: torch, transformers and PEFT in a CPU process take 0.5 GB, a CUDA context as much
ROOM = 0.9  # share of the memory beyond which activations are computed again instead of being kept
# bytes of an optimiser's state for one trained value; paged state waits in the memory of the host
STATE: Mapping[str, float] = {"adamw": 8, "adamw_8bit": 2, "paged_adamw_8bit": 0, "adafactor": 0.1, "sgd": 0}
Checkpointing = Literal["auto", "required", "preferred", "off"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the forecast is of."""

    facts: Mapping[str, Any]
    seq_len: int
    rows: int
    precision: Literal["fp32", "bf16", "fp16"]
    quantize: str
    rank: int | None  # of the adapter; None: all weights are trained
    whole: bool  # embeddings and head are trained whole beside an adapter
    chunked: bool  # the loss never holds all logits
    optimizer: str
    checkpointing: Checkpointing
    strategy: str = "auto"
    offload: Offload = "none"
    stage: int | None = None  # of the user's own DeepSpeed configuration


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What follows from the forecast."""

    forecast: Mapping[str, Any]  # the registry's, with needs and memory in bytes, and longest_seq_len; {}: not known
    demand: Demand | None  # of one process alone, with activations computed again where that may be
    choice: Choice  # how several processes share the work
    checkpointed: bool
    why: str  # of checkpointing


def settle(run: Run, *, memory: int) -> Settled:
    """Whether activations are kept, and how processes share the work, where each has ``memory`` bytes.

    Raises JobError (Infeasible) that names the longest row which fits, and what would help.
    """
    try:
        demand = _demand(run, checkpointed=run.checkpointing != "off")
    except PlanError as error:  # packed weights do not show their widths
        known, why = run.checkpointing not in {"off", "auto"}, f"no forecast: {error}"
        return Settled(forecast={}, demand=None, choice=_choice(run, None, memory), checkpointed=known, why=why)
    choice = _choice(run, demand, memory)
    needed = {again: needs(run, choice, checkpointed=again) for again in (False, True)}
    checkpointed = run.checkpointing != "off" and (run.checkpointing != "auto" or needed[False] > ROOM * memory)
    need = needed[checkpointed]
    longest = _longest(run, choice, checkpointed=run.checkpointing != "off", memory=memory)
    if need > memory:
        raise _too_much(run, need=need, memory=memory, longest=longest, choice=choice)
    found = {**_forecast(run), "needs": need, "memory": memory, "longest_seq_len": longest}
    why = _why(run, needed, memory)
    return Settled(forecast=found, demand=demand, choice=choice, checkpointed=checkpointed, why=why)


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


def needs(run: Run, choice: Choice, *, checkpointed: bool) -> int:
    """Bytes that training takes of one process. Raises PlanError where the weights do not show their widths."""
    demand = _demand(run, checkpointed=checkpointed)
    if choice.name != "none":
        return strategy.needs(choice.name, demand, processes=ranks.size(), offload=choice.offload)
    found = demand.forecast
    return int(found["weights"] + found["gradients"] + found["optimizer"] + demand.working)


def _choice(run: Run, demand: Demand | None, memory: int) -> Choice:
    """The plainest way to share that fits when activations are computed again, where that may be."""
    try:
        return strategy.choose(
            run.strategy,
            processes=ranks.size(),
            optimizer=run.optimizer,
            offload=run.offload,
            stage=run.stage,
            demand=demand,
            memory=memory,
        )
    except PlanError as error:
        raise JobError(str(error), failure="Infeasible") from error


def _demand(run: Run, *, checkpointed: bool) -> Demand:
    found = _forecast(run)
    mode = "on" if checkpointed else "off"
    working = strategy.working(found, checkpointing=mode, chunked=run.chunked)
    if run.rank is None and run.precision != "fp32":
        working += 2 * found["trainable_parameters"]  # the copies that autocast makes
    return Demand(forecast=found, layers=run.facts["layers"], working=working)


def _forecast(run: Run) -> dict[str, Any]:
    """The registry's, with weights as they are here: trained ones in fp32, and the state of this optimiser."""
    found = forecast(
        run.facts,
        seq_len=run.seq_len,
        batch=run.rows,
        rank=run.rank,
        precision=run.precision,
        quantize=run.quantize,  # type: ignore[arg-type]  # the spec allows no other
    )
    beside = run.facts["embedding_parameters"] if run.whole else 0
    trained = found["trainable_parameters"] + beside
    weights = 4 * found["parameters"] if run.rank is None else found["weights"] + 4 * beside
    state = int(STATE[run.optimizer] * trained)
    found |= {"trainable_parameters": trained, "weights": weights, "gradients": 4 * trained, "optimizer": state}
    return found


def _longest(run: Run, choice: Choice, *, checkpointed: bool, memory: int) -> int:
    """The longest row, a multiple of 8 tokens, that fits; 0 where none does. Need grows with the length."""
    low, high = 0, max(run.facts["max_positions"], run.seq_len) // 8
    while low < high:
        middle = (low + high + 1) // 2
        fits = needs(replace(run, seq_len=8 * middle), choice, checkpointed=checkpointed) <= memory
        low, high = (middle, high) if fits else (low, middle - 1)
    return 8 * low


def _too_much(run: Run, *, need: int, memory: int, longest: int, choice: Choice) -> JobError:
    helps = {
        "optimize.checkpointing: auto": run.checkpointing == "off",
        "optimize.loss_chunking: preferred": not run.chunked,
        "fewer batch.rows": run.rows > 1,
        "adapter.type: lora": run.rank is None,
        "quantize: nf4": run.rank is not None and run.quantize == "none" and not run.facts["quantised"],
        "train.optimizer: adafactor": run.rank is None and STATE[run.optimizer] > 1 and choice.name == "none",
        "distribution.offload: all": choice.name in {"fsdp2", "zero3"} and choice.offload == "none",
    }
    would = ", ".join(name for name, new in helps.items() if new)
    fits = f"the longest that fits is {longest}" if longest else "no length fits"
    todo = f"set batch.seq_len to {longest} or less" if longest else "take a larger device or a smaller model"
    also = f", or one of: {would}" if would else ""
    return JobError(
        f"batch.seq_len {run.seq_len} (batch.rows {run.rows}) needs about {_size(need)} of memory by the forecast and "
        f"this process has {_size(memory)}; {fits}: {todo}{also}",
        failure="Infeasible",
    )


def _why(run: Run, needed: Mapping[bool, int], memory: int) -> str:
    if run.checkpointing != "auto":
        return "off" if run.checkpointing == "off" else "asked for by the spec"
    kept = f"keeping all activations needs about {_size(needed[False])} of the {_size(memory)} that there are"
    return f"{kept}; computing them again {_size(needed[True])}" if needed[False] > ROOM * memory else kept


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
