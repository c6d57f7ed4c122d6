"""What transformers' Trainer is told: nothing is logged, measured or saved on its own account."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from runner import ranks
from runner.llm.training.recipe import Recipe
from runner.schema.errors import JobError

OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}
BITSANDBYTES = {"adamw_8bit", "paged_adamw_8bit"}


def arguments(
    recipe: Recipe, *, steps: int, device: str, folder: Path, more: Mapping[str, Any] | None = None
) -> TrainingArguments:
    """``more`` are fields that a strategy of several processes sets. Raises JobError (Infeasible)."""
    _must_be_had(recipe.optimizer, device=device)
    fields: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": passes(recipe),
        "optim": OPTIMIZERS[recipe.optimizer],
        "learning_rate": recipe.rate.highest,
        "weight_decay": recipe.weight_decay,
        "adam_beta1": recipe.betas[0],
        "adam_beta2": recipe.betas[1],
        "max_grad_norm": recipe.clip_norm,
        "bf16": recipe.precision == "bf16",
        "fp16": recipe.precision == "fp16",
        "use_cpu": device == "cpu",
        "seed": recipe.seed,
        "ignore_data_skip": True,
        "logging_strategy": "no",
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "ddp_find_unused_parameters": False,
    }
    made = TrainingArguments(**{**fields, **(more or {})})
    made._n_gpu = min(1, made.n_gpu)  # several GPUs in one process would each get a part of every batch
    return made


def passes(recipe: Recipe) -> int:
    """Forward passes of one process in one step."""
    assert recipe.accumulate % ranks.size() == 0, (recipe.accumulate, ranks.size())
    return recipe.accumulate // ranks.size()


def _must_be_had(optimizer: str, *, device: str) -> None:
    if optimizer not in BITSANDBYTES:
        return
    if device != "cuda":
        raise JobError(
            f"train.optimizer {optimizer!r} needs a GPU, and this job runs on {device!r}: set adamw or adafactor, "
            "which keeps little state",
            failure="Infeasible",
        )
    if find_spec("bitsandbytes") is None:
        raise JobError(
            f"train.optimizer {optimizer!r} needs the package bitsandbytes, which is not installed: "
            "`pip install bitsandbytes`, or set adamw or adafactor",
            failure="Infeasible",
        )
