"""What a model makes of text that it does not learn: the loss of a target token, its perplexity, and a few answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from runner import ranks
from runner.llm.packing.step import Batch, Steps
from runner.llm.training import losses, samples
from runner.llm.training.pace import LOSS
from runner.llm.training.samples import SAMPLES, Prompt
from runner.schema.errors import JobError

PERPLEXITY = "validation_perplexity"
HIGHEST = 700.0  # exp of more is no number


class Examiner:
    """Measures a model on one epoch of ``steps``, which its process shares with the others of the team, and on
    ``prompts``. Without steps there are answers alone."""

    def __init__(
        self,
        steps: Steps | None,
        *,
        tokenizer: Any = None,
        prompts: Sequence[Prompt] = (),
        tokens: int = 64,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        assert not prompts or tokenizer is not None, "answers need a tokenizer"
        self._steps = steps
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._tokens = tokens
        self._check = check

    def measure(self, model: Any, *, together: bool = False) -> dict[str, Any]:
        """`validation_loss` in nats a target, `validation_perplexity`, `validation_targets`, and `samples`.

        Sums are exact over batches and processes. ``model`` comes back in the mode that it was in, and no random
        number is drawn. ``together``: its weights are shared among the processes. Raises JobError (NaN, DataInvalid).
        """
        training = model.training
        model.eval()
        try:
            found = self._losses(model) if self._steps is not None else {}
            if self._prompts:
                asked = {"tokenizer": self._tokenizer, "tokens": self._tokens, "together": together}
                found[SAMPLES] = samples.answers(_plain(model), self._prompts, **asked)
            return found
        finally:
            model.train(training)

    def _losses(self, model: Any) -> dict[str, Any]:
        with _heads_as_in_training(model):
            own = list(self._sums(model))
        sums = [one for part in ranks.of_all(own) for one in part]
        targets = sum(count for _, count in sums)
        if targets == 0:
            raise JobError("data.validation has nothing to measure: every label is masked", failure="DataInvalid")
        loss = math.fsum(one for one, _ in sums) / targets
        if not math.isfinite(loss):
            raise JobError(
                f"the validation loss became {loss}: lower train.learning_rate or lengthen train.warmup", failure="NaN"
            )
        return {LOSS: loss, PERPLEXITY: math.exp(min(loss, HIGHEST)), "validation_targets": targets}

    @torch.no_grad()
    def _sums(self, model: Any) -> Iterator[tuple[float, int]]:
        assert self._steps is not None
        divides = losses.divides(_plain(model))
        # the balance of experts is no part of what a token costs
        more = {"output_router_logits": False} if _routes(model) else {}
        for step in self._steps.begin(0):
            for batch in step.batches:
                targets = int(losses.targets_of(batch["labels"]))
                given = {**to(batch, _plain(model).device), **more}
                loss, _ = losses.share(model, given, targets=1, divides=divides)
                yield float(loss) if targets else 0.0, targets
                self._check()


def to(batch: Batch, device: Any) -> Batch:
    """``batch`` on ``device``."""
    return {name: one.to(device) if isinstance(one, Tensor) else one for name, one in batch.items()}


def _plain(model: Any) -> Any:
    """Inside DeepSpeed's engine."""
    return model.module if type(model).__name__ == "DeepSpeedEngine" else model


def _routes(model: Any) -> bool:
    return bool(getattr(getattr(_plain(model), "config", None), "output_router_logits", False))


@contextmanager
def _heads_as_in_training(model: nn.Module) -> Iterator[None]:
    """The module with the head takes itself to be training, and nothing in it does: a patched one then makes the loss
    without logits (8,192 tokens of 128,256 words are 4.2 GB in fp32), and nothing is dropped."""
    owners = [part for part in model.modules() if "lm_head" in part._modules]
    for part in owners:
        part.training = True
    try:
        yield
    finally:
        for part in owners:
            part.training = False
