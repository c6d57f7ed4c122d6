"""How the processes of a team train one model: what transformers' Trainer is told, and what is gathered afterwards.

Gradients are means over the processes in all strategies, and their losses are shares of one mean, so that the steps
are those of one process. Patches stay in: FSDP2 and ZeRO-3 bring the weights of a whole layer together before it runs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator, PartialState  # type: ignore[import-untyped]
from accelerate.utils import (  # type: ignore[import-untyped]
    DistributedType,
    FullyShardedDataParallelPlugin,
)
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import TrainingArguments

from runner.context import LedgerLine
from runner.kernels.checkpointing import checkpointable
from runner.llm.distribution import config, gather
from runner.llm.distribution.config import Sizes
from runner.registry.strategy import Choice, Name
from runner.schema.errors import JobError

STAGES: Mapping[Name, int] = {"zero2": 2, "zero3": 3}


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One way, made ready."""

    name: Name
    why: str
    shared: bool  # weights are: every process must call the model equally often, in evaluation too
    arguments: Mapping[str, Any] = field(default_factory=dict)  # for TrainingArguments; they win
    lines: tuple[LedgerLine, ...] = ()
    identity: str = "whole"  # form of its checkpoints: those of another cannot be gone on with

    def settle(self, arguments: TrainingArguments) -> None:
        """What TrainingArguments have no field for; call it before a Trainer is made of them."""
        if self.name != "fsdp2":
            return
        # accelerate would round losses and sums of gradients to 16 bits; autocast alone is what one process does
        arguments.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy()
        if arguments.device.type == "cpu":
            _fsdp_on_cpus(arguments)

    def full_state(self, trainer: Any) -> dict[str, Tensor] | None:
        """Whole trained weights in the first process, where no process has them; every one calls it."""
        if not self.shared:
            return None
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_torch_compile=False)
        if self.name == "fsdp2":
            return gather.full_state(model)
        from deepspeed import zero  # noqa: PLC0415 (3 s, and only where it was chosen)

        return gather.full_state(model, gathered=zero.GatheredParameters)


def make(
    choice: Choice, model: Any, *, processes: int, device: str, precision: str, given: Path | None = None
) -> Strategy:
    """``choice`` for ``model``, before the Trainer has it.

    ``precision``: fp32, bf16 or fp16. ``given``: the user's own DeepSpeed configuration, whose values win. Raises
    JobError (Infeasible).
    """
    offload = choice.offload if device != "cpu" else "none"
    lines = [LedgerLine(what="distribution", where=choice.name, applied=choice.name != "none", why=choice.why)]
    if choice.offload != "none":
        lines.append(_of_offload(choice.offload, device))
    if choice.name == "fsdp2":
        arguments = _fsdp2(model, offload=offload)
    elif choice.name in STAGES:
        arguments = _zero(choice.name, model, offload=offload, device=device, precision=precision, given=given)
    else:
        arguments = {}
    return Strategy(
        name=choice.name,
        why=choice.why,
        shared=choice.name in {"fsdp2", "zero3"},
        arguments=arguments,
        lines=tuple(lines),
        identity={"fsdp2": "fsdp2", **{zero: f"{zero} of {processes} processes" for zero in STAGES}}.get(
            choice.name, "whole"
        ),
    )


def _of_offload(offload: str, device: str) -> LedgerLine:
    what = "the optimiser's state" if offload == "optimizer" else "parameters, gradients and the optimiser's state"
    if device == "cpu":
        return LedgerLine(what="offload", applied=False, why="the model lies in the memory of the host")
    return LedgerLine(what="offload", applied=True, why=f"{what} wait in the memory of the host")


def _fsdp2(model: Any, *, offload: str) -> dict[str, Any]:
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "transformer_layer_cls_to_wrap": sorted({type(one).__name__ for one in _layers(model)}),
            "reshard_after_forward": True,
            "cpu_offload": offload == "all",
            "state_dict_type": "SHARDED_STATE_DICT",  # each process writes its own part
        },
    }


def _fsdp_on_cpus(arguments: TrainingArguments) -> None:
    """Say in accelerate's one state for all what it says itself for GPUs alone (1.15); torch shares on CPUs as well."""
    plugin = FullyShardedDataParallelPlugin(**arguments.fsdp_plugin_args)
    precision = "bf16" if arguments.bf16 else "no"
    state = Accelerator(mixed_precision=precision, cpu=True, fsdp_plugin=plugin).state
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    state.fsdp_plugin = plugin


def _zero(name: Name, model: Any, *, offload: str, device: str, precision: str, given: Path | None) -> dict[str, Any]:
    if find_spec("deepspeed") is None:
        raise JobError(
            f"distribution.strategy {name!r} needs the package deepspeed, which is not installed: "
            "`pip install 'specrunner[deepspeed]'`, or set fsdp2",
            failure="Infeasible",
        )
    made = config.generated(stage=STAGES[name], offload=offload, device=device, precision=precision, sizes=sizes(model))
    if given is not None:
        made = config.merged(made, config.given(given))
    _begin_deepspeed(device)
    return {"deepspeed": made, "bf16": False, "fp16": False}  # torch_autocast of its configuration says it


def _begin_deepspeed(device: str) -> None:
    os.environ["DS_ACCELERATOR"] = device  # or it looks for devices, and takes what it finds for the job's
    import deepspeed.ops  # noqa: PLC0415 (3 s, and only where it was chosen)

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if device == "cpu":
        # Its shared memory is an extension in C++, compiled on the first use (45 s); a kill meanwhile leaves a lock
        # that the next run waits for without end. Gloo does without.
        deepspeed.ops.__compatible_ops__ = {}


def sizes(model: Any) -> Sizes:
    """Of ``model``, with or without an adapter."""
    found = model.config.get_text_config()
    layers = list(_layers(model))
    return Sizes(
        parameters=sum(one.numel() for one in model.parameters()),
        trainable=sum(one.numel() for one in model.parameters() if one.requires_grad),
        hidden=found.hidden_size,
        layers=max(1, len(layers)),
    )


def _layers(model: Any) -> list[Any]:
    return [layer for _, layer in checkpointable(model)]
