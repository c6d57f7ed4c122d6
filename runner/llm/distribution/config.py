"""A DeepSpeed configuration for one model, and what of the user's own goes over it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.registry.strategy import BUCKET
from runner.schema.errors import JobError

Fields = dict[str, Any]
ZERO = "zero_optimization"
AUTO = "auto"  # transformers' Trainer puts its own value in
# What the spec says already, and part of which decides the result: a value here could only contradict it
SPEC: Mapping[str, str] = {
    "optimizer": "train.optimizer",
    "scheduler": "train.schedule",
    "gradient_clipping": "train.clip_norm",
    "gradient_accumulation_steps": "batch.accumulate",
    "train_batch_size": "batch",
    "train_micro_batch_size_per_gpu": "batch.rows",
    "fp16": "precision",
    "bf16": "precision",
    "amp": "precision",
    "torch_autocast": "precision",
}
# The other sections that DeepSpeed 0.19 reads; of keys it does not know it says nothing at this level
SECTIONS = {
    *("zero_optimization", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "communication_data_type"),
    *("prescale_gradients", "gradient_predivide_factor", "sparse_gradients", "disable_allgather", "data_types"),
    *("steps_per_print", "wall_clock_breakdown", "dump_state", "memory_breakdown", "comms_logger", "flops_profiler"),
    *("activation_checkpointing", "aio", "checkpoint", "tensorboard", "csv_monitor", "wandb", "comet", "seed"),
    *("graph_harvesting", "timers", "compile", "elasticity", "autotuning", "disable_python_gc"),
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of one model, in elements."""

    parameters: int
    trainable: int
    hidden: int
    layers: int


def generated(*, stage: int, offload: str, device: str, precision: str, sizes: Sizes) -> Fields:
    """The configuration for ZeRO ``stage``.

    The optimiser, the schedule and the batch are the Trainer's. Products in 16 bits come from torch's autocast, as
    without DeepSpeed: its own modes would round weights that are kept in fp32. Sums over processes are in fp32.
    """
    bucket = min(BUCKET, sizes.trainable)
    zero: Fields = {
        "stage": stage,
        "contiguous_gradients": True,
        "overlap_comm": device != "cpu",
        "reduce_bucket_size": bucket,
    }
    if stage == 2:
        zero["allgather_bucket_size"] = bucket
    if stage == 3:
        layer = max(1, sizes.parameters // sizes.layers)
        zero |= {
            "stage3_prefetch_bucket_size": min(BUCKET, layer),
            "stage3_param_persistence_threshold": 10 * sizes.hidden,  # norms and biases: a call costs more than they do
            "stage3_max_live_parameters": 2 * layer,
            "stage3_max_reuse_distance": 2 * layer,
        }
    if offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": device != "cpu"}
    if offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": device != "cpu"}
    made: Fields = dict.fromkeys(
        ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"), AUTO
    )
    made |= {
        ZERO: zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # its CPU Adam is compiled on the first use
        "steps_per_print": 2**31 - 1,
        "wall_clock_breakdown": False,
    }
    if precision != "fp32":
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[precision]
        made["torch_autocast"] = {"enabled": True, "dtype": dtype, "lower_precision_safe_modules": []}
    return made


def given(path: Path) -> Fields:
    """The user's own configuration, which ``strategy.stage_of`` could read.

    Raises JobError (Infeasible) for what is the spec's to say, and what DeepSpeed does not know.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    ours = sorted(key for key in found if key in SPEC and not _auto(found[key]))
    if ours:
        raise _bad(f"sets {ours[0]!r}, which is the spec's {SPEC[ours[0]]}", "take it out of the file")
    unknown = sorted(set(found) - SECTIONS - set(SPEC))
    if unknown:
        raise _bad(f"has {unknown[0]!r}, which DeepSpeed does not know", f"known are {', '.join(sorted(SECTIONS))}")
    return {key: value for key, value in found.items() if key in SECTIONS}


def merged(made: Mapping[str, Any], own: Mapping[str, Any]) -> Fields:
    """``made`` with the values of ``own`` over it, key by key, at every depth; `auto` leaves what was made."""
    done = dict(made)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(done.get(key), dict)
        if both:
            done[key] = merged(done[key], value)
        elif value != AUTO or key not in done:
            done[key] = value
    return done


def _auto(value: Any) -> bool:
    """Whether all that it says is left to the Trainer."""
    if isinstance(value, dict):
        return all(_auto(one) for one in value.values())
    return bool(value == AUTO)


def _bad(what: str, remedy: str) -> JobError:
    return JobError(f"distribution.deepspeed: the file {what}: {remedy}", failure="Infeasible")
