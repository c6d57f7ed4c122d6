"""The loss of one forward pass as a sum over its targets, so that steps weigh tokens and not batches."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn
from transformers.trainer_utils import unwrap_peft_model

from runner.llm.packing.step import IGNORED, Batch


def divides(model: nn.Module) -> bool:
    """Whether ``model`` divides its summed loss by `num_items_in_batch`; some with pictures only give a mean."""
    inner = unwrap_peft_model(model)
    if hasattr(inner, "accepts_loss_kwargs"):
        return bool(inner.accepts_loss_kwargs)
    return any(one.kind is one.VAR_KEYWORD for one in inspect.signature(inner.forward).parameters.values())


def targets_of(labels: Tensor) -> Tensor:
    """How many of ``labels`` [R, T] count: a row's first is nobody's to predict."""
    return labels[..., 1:].ne(IGNORED).sum()


def share(model: Any, batch: Batch, *, targets: int, divides: bool) -> tuple[Tensor, Any]:
    """Sum of the losses of ``batch`` over ``targets``, and what ``model`` gave.

    What a model adds to it, the balance of experts, is as transformers has it: added to each forward pass.
    """
    if divides:
        outputs = model(**batch, num_items_in_batch=targets)
        return _loss(outputs), outputs
    own = int(targets_of(batch["labels"]))
    if own == 0:  # their mean would be 0 / 0, and its gradient no number
        labels = batch["labels"].clone()
        labels[..., -1] = batch["input_ids"][..., -1]
        batch = {**batch, "labels": labels}
    outputs = model(**batch)
    return _loss(outputs) * (own / targets), outputs


def _loss(outputs: Any) -> Tensor:
    loss: Tensor = outputs["loss"] if isinstance(outputs, dict) else outputs[0]
    return loss
