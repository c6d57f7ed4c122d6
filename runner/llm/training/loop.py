"""The optimiser's run on transformers' Trainer: its loop, its wrappers and its checkpoint files; our steps and loss.

What the Trainer would do otherwise, and why not: it counts the targets of a step by asking all processes (ours are
known), takes a model's mean over each batch where that model does not divide (batches weigh tokens unlike), skips what
was learned before a kill by reading it all again (`Steps.begin` goes there at once), writes checkpoints in place (a
kill leaves half of one) with all the frozen weights, and takes a NaN for the average of earlier losses.

In a team the Trainer finds the group of torch.distributed, and `arguments` say what goes around the model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainingArguments
from transformers import Trainer as HfTrainer

from runner import ranks
from runner.checkpoints import Checkpoints
from runner.llm.packing.step import IGNORED, Batch, Step, Steps
from runner.llm.training import losses
from runner.llm.training.evaluate import Examiner
from runner.llm.training.noise import Noise
from runner.llm.training.pace import Pace
from runner.llm.training.recipe import Recipe
from runner.llm.training.watch import Watch
from runner.schema.errors import JobError

WEIGHTS = "model.safetensors"  # as the Trainer calls it: what is trained, under the model's own names


class Feed:
    """The steps from where the run is, one after the other."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __iter__(self) -> Iterator[Step]:
        return self._trainer.steps.begin(self._trainer.state.global_step)


class Trainer(HfTrainer):  # type: ignore[misc]  # transformers is not typed
    """The Trainer with our steps, loss, measurements and checkpoints."""

    loss_is_scaled_for_ga = True
    control: TrainerControl
    lr_scheduler: Any

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        *,
        steps: Steps,
        recipe: Recipe,
        checkpoints: Checkpoints,
        pace: Pace,
        watch: Watch,
        examiner: Examiner | None = None,
        callbacks: tuple[TrainerCallback, ...] = (),
    ) -> None:
        self.steps = steps
        self._recipe = recipe
        self._checkpoints = checkpoints
        self.pace = pace
        self._watch = watch
        self._examiner = examiner
        super().__init__(model, args, data_collator=_no_collator, callbacks=[pace, *callbacks])
        self.remove_callback(PrinterCallback)
        self._divides = losses.divides(self.accelerator.unwrap_model(model))
        self._noise = None if recipe.neftune_alpha is None else Noise(model, recipe.neftune_alpha)
        self.model_accepts_loss_kwargs = True  # compute_loss sees to those that do not

    @property
    def computing(self) -> Any:
        """The model as every process calls it outside the loop: sharded ones through what gathers their weights."""
        return self.model_wrapped if self.is_deepspeed_enabled or self.is_fsdp_enabled else self.model

    def get_train_dataloader(self) -> Feed:
        """Ours as it is: accelerate's wrapper would only shard it again."""
        return Feed(self)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The recipe's rate."""
        rate, steps = self._recipe.rate, self.steps.total
        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: rate.share_at(step, steps=steps))
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_batch_samples(
        self, epoch_iterator: Iterator[Step], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], int]:
        """The batches of one step, and its targets in all processes; none where the run is over."""
        if self.control.should_training_stop:
            return [], 0
        began = time.perf_counter()
        step = next(epoch_iterator)
        if step.targets == 0:
            raise JobError(
                f"step {step.number + 1} has nothing to learn: every label of its {step.documents} documents is "
                "masked; look at them with `runner explain data`",
                failure="DataInvalid",
            )
        self._watch.begin(step, began=began)
        batches = list(step.batches)
        assert 0 < len(batches) <= num_batches, f"{len(batches)} batches in a step of {num_batches}"
        # The loop counts batches: a smaller last step is filled with one that nothing is learned from.
        blank = {**batches[-1], "labels": torch.full_like(batches[-1]["labels"], IGNORED)}
        return batches + [blank] * (num_batches - len(batches)), step.targets

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This batch's part of the mean loss over all targets of the step."""
        if self._noise is not None:
            self._noise.begin(inputs)
        loss, outputs = losses.share(model, inputs, targets=num_items_in_batch, divides=self._divides)
        loss = loss * ranks.size()  # gradients are means over the processes
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: Batch) -> int:
        """Not counted: the Trainer's estimate counts padding and knows no packing."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """One step's figures: what stops the run is found here, before a checkpoint is written."""
        if "learning_rate" not in logs:  # the Trainer's summary of a run
            return
        step = self.state.global_step
        self._watch.end(step, loss=logs["loss"], grad_norm=_number(logs["grad_norm"]), rate=logs["learning_rate"])
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, self._watch.shown())

    def evaluate(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Measure, and add a row to the history; before the first step too, but not when the run goes on."""
        step = self.state.global_step
        if step and not self.control.should_evaluate:
            return {}
        found: dict[str, Any] = {}
        if self._examiner is not None:
            found = self._examiner.measure(self.computing, together=self.is_deepspeed_enabled or self.is_fsdp_enabled)
        self.state.log_history.append({"step": step, **self._watch.row(), **found})
        shown = self._watch.measured(step, found)
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, shown)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics=shown)
        return found

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """What is trained. Sharded weights are saved with the optimiser's state, by those who share them."""
        assert output_dir is not None, "only checkpoints are saved through the Trainer"
        Path(output_dir).mkdir(parents=True, exist_ok=True)  # another process may have been quicker
        if self.is_deepspeed_enabled or self.is_fsdp_enabled or ranks.rank():
            return
        save_file(trained(self.model), Path(output_dir) / WEIGHTS, metadata={"format": "pt"})

    def load(self, checkpoint: Path) -> None:
        """The weights of ``checkpoint``; optimiser and scheduler are of no use any more."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            self.state.best_model_checkpoint = str(checkpoint)
            self._load_best_model()
        else:
            self._load_from_checkpoint(str(checkpoint))

    def unwrap(self) -> None:
        """Take off the model what the loop put around it, as far as it is this process's alone."""
        if self._noise is not None:
            self._noise.remove()
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            return
        # accelerate's autocast. Its own unwrap_model makes a method of what was there, and a patch is none: it would be
        # given the model twice
        held = self.model.__dict__
        original = held.pop("_original_forward", None)
        if getattr(original, "__func__", None) is type(self.model).forward:
            del held["forward"]
        elif original is not None:
            held["forward"] = original

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """What is frozen is missing, and nothing else may be."""
        lost = set(load_result.missing_keys) & set(trained(self.model))
        assert not lost and not load_result.unexpected_keys, (lost, load_result.unexpected_keys)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # into the folder that nobody reads; each process its own part
        ranks.meet()
        if ranks.rank() == 0:
            self._watch.sync()
            step, best = self.state.global_step, self.pace.best(self.state)
            written = self._checkpoints.writing / f"checkpoint-{step}"
            self._checkpoints.publish(written, step=step, keep=set() if best is None else {best})
        ranks.meet()


def trained(model: Any) -> dict[str, Tensor]:
    """The weights that are trained, by name; tied ones once."""
    return {name: one.detach().contiguous() for name, one in model.named_parameters() if one.requires_grad}


def _number(value: Any) -> float:
    return float(value.full_tensor()) if hasattr(value, "full_tensor") else float(value)


def _no_collator(_: Any) -> Any:
    raise AssertionError("batches come whole from Steps")
