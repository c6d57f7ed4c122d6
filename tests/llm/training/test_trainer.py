"""Beside a plain Trainer of transformers with the same batches and settings: the same losses and the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PrinterCallback, Trainer, TrainingArguments

from runner.kernels import patching
from runner.llm.training.recipe import Rate
from tests.llm.training import small


def plain(folder: Path, model: Any, listed: small.Listed, **changed: Any) -> list[dict[str, Any]]:
    """What transformers' own Trainer tells of each step."""
    fields: dict[str, Any] = {
        "max_steps": listed.total,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.1,
        "logging_steps": 1,
        "per_device_train_batch_size": 1,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        **changed,
    }
    trainer = Trainer(
        model,
        TrainingArguments(output_dir=str(folder), **fields),
        train_dataset=[batch for step in listed.steps for batch in step.batches],
        data_collator=lambda rows: rows[0],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return [row for row in trainer.state.log_history if "grad_norm" in row]


def made(case: str) -> Any:
    if case == "experts":
        model = small.model("mixtral")
        model.config.output_router_logits = True  # their balance is part of the loss
        return model
    model = small.model()
    if case == "lora":
        torch.manual_seed(1)
        return get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"]))
    if case == "patched":
        patching.apply(model, {"linear_cross_entropy": "required", "attention": "required"})
    return model


STEADY = (
    {"optim": "sgd", "lr_scheduler_type": "constant"},
    {"optimizer": "sgd", "rate": Rate(highest=1e-2, warmup=0, schedule="constant")},
)


@pytest.mark.parametrize(
    ("case", "changed", "own"),
    [
        ("full", {}, {}),
        ("patched", *STEADY),  # AdamW makes as large a step of a gradient that is rounding as of any other
        ("experts", {}, {}),
        ("lora", {"lr_scheduler_type": "cosine"}, {"rate": Rate(highest=1e-2, warmup=0, floor=0)}),
        ("full", {"optim": "adafactor", "max_grad_norm": 0.1}, {"optimizer": "adafactor", "clip_norm": 0.1}),
        ("full", {"bf16": True}, {"precision": "bf16"}),
    ],
    ids=["full", "patched", "experts", "lora", "adafactor", "bf16"],
)
def test_losses_and_weights_are_those_of_a_plain_trainer(
    tmp_path: Path, case: str, changed: dict[str, Any], own: dict[str, Any]
) -> None:
    listed = small.steps(5)
    theirs, ours = made("full" if case == "patched" else case), made(case)
    wanted = plain(tmp_path / "a", theirs, listed, **changed)
    small.fit(
        tmp_path / "b",
        ours,
        listed,
        **{"rate": Rate(highest=1e-2, schedule="linear", warmup=0, floor=0), "weight_decay": 0.1, **own},
    )
    found = small.journal(tmp_path / "b")
    rough = {"rel": 2e-3} if own.get("precision") == "bf16" else {"rel": 1e-6}
    for name in ("loss", "grad_norm", "learning_rate"):
        assert [row[name] for row in found] == pytest.approx([row[name] for row in wanted], **rough), name
    for name, value in small.weights(theirs).items():
        assert torch.allclose(small.weights(ours)[name], value, atol=1e-6 if rough["rel"] == 1e-6 else 1e-3), name
