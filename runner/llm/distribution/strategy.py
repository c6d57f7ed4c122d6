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

import torch
from accelerate import Accelerator, PartialState  # type: ignore[import-untyped]
from accelerate.utils import (  # type: ignore[import-untyped]
    DistributedType,
    FullyShardedDataParallelPlugin,
)
from pydantic import ValidationError
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import TrainingArguments

from runner import ranks
from runner.context import LedgerLine
from runner.kernels.checkpointing import checkpointable
from runner.kernels.patching import Applied
from runner.llm.distribution import config, gather
from runner.llm.distribution.config import Sizes
from runner.llm.model.prepared import Prepared
from runner.registry.strategy import Choice, Name
from runner.schema.errors import JobError

STAGES: Mapping[str, int] = {"zero2": 2, "zero3": 3}
HOOKS = "DeepSpeed brings a module's weights when it is called, and PEFT's own forward calls them one by one"


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
        # accelerate's own rounds weights, losses and sums of gradients to 16 bits; see `_under_autocast`
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


def begin(prepared: Prepared, *, device: str, given: Path | None = None) -> Strategy:
    """The strategy that the forecast chose (``prepared.choice``), made ready for its model before a Trainer has it.

    ``given``: the user's own DeepSpeed configuration, whose values win. Raises JobError (Infeasible).
    """
    if given is not None and prepared.choice.name not in STAGES:
        raise JobError(
            "distribution.deepspeed: name its zero_optimization.stage, 2 or 3, or set strategy", failure="Infeasible"
        )
    if prepared.choice.name == "zero3":
        _without_lora_kernel(prepared.applied)
    return _made(
        prepared.choice,
        prepared.model,
        processes=ranks.size(),
        device=device,
        precision=prepared.precision.name,
        given=given,
    )


def _made(choice: Choice, model: Any, *, processes: int, device: str, precision: str, given: Path | None) -> Strategy:
    offload = choice.offload if device != "cpu" else "none"
    lines = [LedgerLine(what="distribution", where=choice.name, applied=choice.name != "none", why=choice.why)]
    if choice.offload != "none":
        lines.append(_of_offload(choice.offload, device))
    arguments: dict[str, Any] = {}
    identity = "whole"
    if choice.name == "fsdp2":
        arguments, identity = _fsdp2(model, offload=offload), "fsdp2"
        _under_autocast(model, device=device, precision=precision)
    elif choice.name in STAGES:
        arguments = _zero(choice.name, model, offload=offload, device=device, precision=precision, given=given)
        identity = f"{choice.name} of {processes} processes"
    return Strategy(
        name=choice.name,
        why=choice.why,
        shared=choice.name in {"fsdp2", "zero3"},
        arguments=arguments,
        lines=tuple(lines),
        identity=identity,
    )


def _without_lora_kernel(applied: Applied) -> None:
    """PEFT's own forward, which hooks on the parts of a layer want."""
    for line in applied.ledger.of("lora_linear"):
        if line.wanted == "required":
            raise JobError(
                f"optimize.quantised_lora is required and distribution.strategy zero3 cannot have it: {HOOKS}; set "
                "strategy to fsdp2, or quantised_lora to preferred",
                failure="Infeasible",
            )
        if line.applied:
            applied.ledger.change(line, applied=False, why=f"zero3: {HOOKS}")
    if "lora_linear" in applied.found:
        applied.undo("lora_linear")


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


def _under_autocast(model: Any, *, device: str, precision: str) -> None:
    """Products in 16 bits, as accelerate has them in one process and under DDP: with FSDP2 it knows its policy alone,
    which keeps the sums between layers in 16 bits too. The name is accelerate's, which patches look for.
    """
    if precision == "fp32":
        return
    model._original_forward = model.forward
    model.forward = torch.autocast(device, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[precision])(
        model.forward
    )


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
    _must_be_known(made[config.ZERO])
    return {"deepspeed": made, "bf16": False, "fp16": False}  # torch_autocast of its configuration says it


def _begin_deepspeed(device: str) -> None:
    os.environ["DS_ACCELERATOR"] = device  # or it looks for devices, and takes what it finds for the job's
    import deepspeed.ops  # noqa: PLC0415 (3 s, and only where it was chosen)

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if device == "cpu":
        # Its shared memory is an extension in C++, compiled on the first use (45 s); a kill meanwhile leaves a lock
        # that the next run waits for without end. Gloo does without.
        deepspeed.ops.__compatible_ops__ = {}


def _must_be_known(zero: Mapping[str, Any]) -> None:
    """What DeepSpeed itself would refuse, in the middle of a run and on many lines."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig  # noqa: PLC0415 (3 s, and only where it was chosen)

    try:
        DeepSpeedZeroConfig(**zero)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise JobError(
            f"distribution.deepspeed: DeepSpeed refuses zero_optimization.{where} = {first['input']!r:.80}: "
            f"{first['msg']}; mend the file",
            failure="Infeasible",
        ) from None


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
