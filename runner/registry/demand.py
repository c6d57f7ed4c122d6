"""What training a language model takes of a process's memory: one reckoning, for a plan and for the run. Without torch.

Trained weights, their gradients and the optimiser's state are in fp32; under autocast, weights that are trained whole
have a 16-bit copy while the loss is computed. What a process holds besides - its libraries, a device's context - is in
``RESERVE``. All of it is an estimate: what does not fit by it is refused, what fits by it may still run out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runner.registry import strategy
from runner.registry.forecast import Precision, forecast
from runner.registry.strategy import Choice, Demand, Offload
from runner.schema.errors import PlanError

RESERVE = 6 * 10**8  # bytes: torch, transformers and PEFT in a CPU process take 0.5 GB, a CUDA context as much
ROOM = 0.9  # share of the memory beyond which activations are computed again instead of being kept
# bytes of an optimiser's state for one trained value; paged state waits in the memory of the host
STATE: Mapping[str, float] = {"adamw": 8, "adamw_8bit": 2, "paged_adamw_8bit": 0, "adafactor": 0.1, "sgd": 0}
Checkpointing = Literal["auto", "required", "preferred", "off"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the forecast is of."""

    facts: Mapping[str, Any]
    seq_len: int
    rows: int
    precision: Precision
    quantize: str
    rank: int | None  # of the adapter; None: all weights are trained
    whole: bool  # embeddings and head are trained whole beside an adapter
    chunked: bool  # the loss never holds all logits, see `chunks`
    optimizer: str
    checkpointing: Checkpointing
    strategy: str = "auto"
    offload: Offload = "none"
    stage: int | None = None  # of the user's own DeepSpeed configuration


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What follows for a process; ``needed`` is in bytes, with activations kept (False) and computed again (True)."""

    demand: Demand | None  # of one process alone, with activations computed again where that may be; None: not known
    choice: Choice  # how several processes share the work
    needed: Mapping[bool, int]  # {}: not known
    checkpointed: bool
    unknown: str = ""  # why it is not known

    @property
    def need(self) -> int | None:
        """Bytes of one process, as it will train."""
        return self.needed.get(self.checkpointed)


def settle(shape: Shape, *, processes: int, memory: int | None) -> Settled:
    """Whether activations are kept, and the plainest way to share that fits, where each process has ``memory`` bytes.

    Raises PlanError for what cannot be had together.
    """
    found, unknown = None, ""
    try:
        found = demand(shape, checkpointed=shape.checkpointing != "off")
    except PlanError as error:  # packed weights do not show their widths
        unknown = str(error)
    choice = strategy.choose(
        shape.strategy,
        processes=processes,
        optimizer=shape.optimizer,
        offload=shape.offload,
        stage=shape.stage,
        demand=found,
        memory=memory,
    )
    if found is None:
        again = shape.checkpointing not in {"off", "auto"}
        return Settled(demand=None, choice=choice, needed={}, checkpointed=again, unknown=unknown)
    needed = {again: needs(shape, choice, processes=processes, checkpointed=again) for again in (False, True)}
    again = shape.checkpointing in {"required", "preferred"}
    if shape.checkpointing == "auto":
        again = memory is None or needed[False] > ROOM * memory
    return Settled(demand=found, choice=choice, needed=needed, checkpointed=again)


def needs(shape: Shape, choice: Choice, *, processes: int, checkpointed: bool) -> int:
    """Bytes that training takes of one process. Raises PlanError where the weights do not show their widths."""
    found = demand(shape, checkpointed=checkpointed)
    return strategy.needs(choice.name, found, processes=processes, offload=choice.offload)


def demand(shape: Shape, *, checkpointed: bool) -> Demand:
    """What one process takes alone. Raises PlanError where the weights do not show their widths."""
    found = _forecast(shape)
    mode = "on" if checkpointed else "off"
    working = strategy.working(found, checkpointing=mode, chunked=shape.chunked)
    if shape.rank is None and shape.precision != "fp32":
        working += 2 * found["trainable_parameters"]  # the copies that autocast makes
    return Demand(forecast=found, layers=shape.facts["layers"], working=working)


def chunks(facts: Mapping[str, Any]) -> bool:
    """Whether the loss of such a model can do without all logits at once."""
    return any(one["wanted"] and one["patch"] == "linear_cross_entropy" for one in facts["patches"])


def _forecast(shape: Shape) -> dict[str, Any]:
    """The registry's, with weights as they are trained here: in fp32, and the state of this optimiser."""
    found = forecast(
        shape.facts,
        seq_len=shape.seq_len,
        batch=shape.rows,
        rank=shape.rank,
        precision=shape.precision,
        quantize=shape.quantize,  # type: ignore[arg-type]  # the spec allows no other
    )
    beside = shape.facts["embedding_parameters"] if shape.whole and shape.rank is not None else 0
    trained = found["trainable_parameters"] + beside
    weights = 4 * found["parameters"] if shape.rank is None else found["weights"] + 4 * beside
    state = int(STATE[shape.optimizer] * trained)
    return found | {"trainable_parameters": trained, "weights": weights, "gradients": 4 * trained, "optimizer": state}
