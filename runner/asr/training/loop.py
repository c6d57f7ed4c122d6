"""The optimiser's run on transformers' Trainer: its data, its measurements and its checkpoints are ours.

What the Trainer would do otherwise, and why not: it writes checkpoints in place (a kill leaves half of one), counts
batches by epoch (ours differ in number, as batches are made by seconds), divides each batch of an accumulated step
by their number (ours differ in clips), takes a NaN for the average of earlier losses, and forgets on a resume how long
it has waited for a better model.

In a team the Trainer finds the group of torch.distributed and puts DDP around the model; it shards no data, as the
loader is ours. Every process takes the same steps, holds the same history, and comes to the same end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from runner import ranks
from runner.asr.training import progress
from runner.asr.training.dataset import ALL, OWN, Batch, Heard, Turns, loader
from runner.asr.training.evaluation import Examiner
from runner.asr.training.network import heard
from runner.asr.training.recipe import Recipe
from runner.asr.training.spelling import Spelling
from runner.checkpoints import Checkpoints
from runner.schema.errors import JobError
from runner.tell import Tell

WEIGHTS = "weights.safetensors"
RANDOM = "rng_state*.pth"  # one for each process that wrote a checkpoint
STATE = "trainer_state.json"
# of fp16 gradients in a row: the scaler skips such a step and halves its scale, which is 1 after 16 (from 65,536)
OVERFLOWS = 20


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run left behind."""

    history: list[dict[str, Any]]  # one row a measurement: step, loss, grad_norm, learning_rate, and figures()
    steps: int  # taken
    planned: int
    best: int  # step of the best measurement
    stopped_early: bool


def train(
    model: Any,
    *,
    data: Heard,
    steps: int,
    turns: Turns,
    recipe: Recipe,
    spelling: Spelling,
    examiner: Examiner,
    name: str,
    device: str,
    processes: int,
    checkpoints: Checkpoints,
    tell: Tell,
) -> Run:
    """Train ``model`` in place, from the last checkpoint if there is one; it ends with the best measured weights.

    ``name`` is what the model calls its input, ``processes`` read audio beside this one. Raises JobError (NaN).
    """
    every = recipe.every_steps or max(1, min(1000, steps // 10))
    pace = Pace(steps=steps, every=every, patience=recipe.patience, tell=tell)
    trainer = CtcTrainer(
        model,
        arguments(recipe, steps=steps, device=device, folder=checkpoints.writing),
        batches=lambda: loader(data, turns, name=name, processes=processes),
        recipe=recipe,
        steps=steps,
        examiner=examiner,
        spelling=spelling,
        checkpoints=checkpoints,
        pace=pace,
    )
    if ranks.rank():
        set_seed(recipe.seed + ranks.rank())  # other clips, other masks and dropout
    last = checkpoints.last()
    state = None if last is None else TrainerState.load_from_json(str(last / STATE))
    if state is None or not pace.over(state):
        if last is not None and state is not None:
            tell.log(f"goes on after step {state.global_step} of {steps}{_otherwise(last)}")
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
        state = trainer.state
    history = [dict(row) for row in progress.measured(state.log_history)]
    best = progress.best(history)
    assert best is not None, "the last step is always measured"
    model.load_state_dict(load_file(checkpoints.of(best["step"]) / WEIGHTS, device=device))
    return Run(
        history=history,
        steps=state.global_step,
        planned=steps,
        best=best["step"],
        stopped_early=state.global_step < steps,
    )


def _otherwise(last: Path) -> str:
    """What to say when the checkpoint ``last`` was written by another number of processes."""
    before, now = len(list(last.glob(RANDOM))), ranks.size()
    if before == now:
        return ""
    return f" with {now} processes instead of {before}: the same steps with other random masks"


def arguments(recipe: Recipe, *, steps: int, device: str, folder: Path) -> TrainingArguments:
    """What the Trainer is told: nothing is logged, measured or saved on its own account."""
    made = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        gradient_accumulation_steps=recipe.accumulate,
        gradient_checkpointing=recipe.checkpointing,
        max_grad_norm=recipe.clip_norm,
        bf16=recipe.precision == "bf16",
        fp16=recipe.precision == "fp16",
        use_cpu=device == "cpu",
        seed=recipe.seed,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        ddp_find_unused_parameters=True,  # layers are skipped at random, and in each process others
    )
    made._n_gpu = min(1, made.n_gpu)  # several GPUs in one process would each get a part of every batch
    return made


class Pace(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """When to measure, when to stop, and what to tell. It holds no state: the Trainer's history does."""

    def __init__(self, *, steps: int, every: int, patience: int | None, tell: Tell) -> None:
        self._steps = steps
        self._every = every
        self._patience = patience
        self._tell = tell

    def on_substep_end(self, _: Any, state: TrainerState, control: TrainerControl, **__: Any) -> None:
        self._tell.check()

    def on_step_end(self, _: Any, state: TrainerState, control: TrainerControl, **__: Any) -> None:
        self._tell.progress(state.global_step, self._steps, "steps")
        self._tell.check()
        due = state.global_step % self._every == 0 or state.global_step >= self._steps
        control.should_log = control.should_evaluate = control.should_save = due

    def on_evaluate(self, _: Any, state: TrainerState, control: TrainerControl, **__: Any) -> None:
        row = state.log_history[-1]
        for name in ("loss", "grad_norm", "learning_rate", "validation_loss", "blank_ratio", "wer", "cer"):
            self._tell.metric(name, row[name])
        self._tell.log(progress.line(row, steps=self._steps))
        said = progress.plateau(row, step=row["step"], steps=self._steps)
        if said:
            self._tell.log(said)
        if self.over(state):
            control.should_training_stop = True

    def over(self, state: TrainerState) -> bool:
        """Whether nothing is left to do after ``state``."""
        tired = self._patience is not None and progress.waited(state.log_history) >= self._patience
        return tired or state.global_step >= self._steps


class CtcTrainer(Trainer):  # type: ignore[misc]  # transformers is not typed
    """The Trainer with our data, loss, measurements and checkpoints."""

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        *,
        batches: Callable[[], Any],
        recipe: Recipe,
        steps: int,
        examiner: Examiner,
        spelling: Spelling,
        checkpoints: Checkpoints,
        pace: Pace,
    ) -> None:
        self._batches = batches
        self._recipe = recipe
        self._steps = steps
        self._examiner = examiner
        self._spelling = spelling
        self._checkpoints = checkpoints
        self._norm = 0.0  # of the last gradient that was finite
        self._overflows = 0  # in a row
        super().__init__(model, args, data_collator=_no_collator, callbacks=[pace])
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> Any:
        """Ours as it is: accelerate's wrapper would only reshuffle it."""
        return self._batches()

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW; what has one dimension (biases, norms) is not decayed."""
        parameters = [one for one in self.model.parameters() if one.requires_grad]
        groups = [
            {"params": [one for one in parameters if one.ndim > 1], "weight_decay": self._recipe.weight_decay},
            {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = AdamW(groups, lr=self._recipe.rate.highest, betas=self._recipe.betas)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The recipe's rate."""
        rate, steps = self._recipe.rate, self._steps
        self.lr_scheduler = LambdaLR(self.optimizer, lambda step: rate.share_at(step, steps=steps))
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], int]:
        """The batches of one step, and the clips in them in all processes."""
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        return batches, sum(batch[ALL] for batch in batches)

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The batch's part of the mean loss over all clips of the step. Raises JobError (NaN)."""
        outputs = heard(model, {name: value for name, value in inputs.items() if name not in {OWN, ALL}})
        loss = outputs.loss
        if not math.isfinite(loss.item()):
            raise _not_finite("loss", loss.item(), step=self.state.global_step + 1)
        loss = loss * (inputs[OWN] / num_items_in_batch * ranks.size())  # DDP takes the mean over the processes
        return (loss, outputs) if return_outputs else loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        if math.isfinite(float(norm)):
            self._norm, self._overflows = float(norm), 0
            return norm
        self._overflows += 1
        if not self.args.fp16 or self._overflows > OVERFLOWS:
            raise _not_finite("gradient", float(norm), step=self.state.global_step + 1)
        return norm

    def floating_point_ops(self, inputs: Batch) -> int:
        """Not counted: the Trainer's estimate is for text."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Keep for the measurement that follows; the history holds one row for each of those."""
        self._logged = logs

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure, and add a row to the history."""
        found = self._examiner.evaluate(self.model, self._spelling).figures()
        logged = {name: self._logged[name] for name in ("loss", "learning_rate")}
        row = {"step": self.state.global_step, "grad_norm": self._norm, "processes": ranks.size()}
        self.state.log_history.append({**row, **logged, **found})
        self.control: TrainerControl = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics=found
        )
        return found

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Every weight, those of adapters too."""
        assert output_dir is not None, "only checkpoints are saved through the Trainer"
        if ranks.rank():
            return
        Path(output_dir).mkdir(parents=True, exist_ok=True)  # another process may have been quicker
        weights = {name: one.detach().contiguous() for name, one in self.model.state_dict().items()}
        save_file(weights, Path(output_dir) / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # not the Trainer's device, which in a team is `cpu:0`
        weights = load_file(Path(resume_from_checkpoint) / WEIGHTS, device=str(self.model.device))
        self.model.load_state_dict(weights)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # into the folder that nobody reads; each process its random numbers
        ranks.meet()
        if ranks.rank() == 0:
            self._publish_checkpoint()
        ranks.meet()

    def _publish_checkpoint(self) -> None:
        step = self.state.global_step
        best = progress.best(self.state.log_history)
        keep = {best["step"]} if best is not None else set()
        self._checkpoints.publish(self._checkpoints.writing / f"checkpoint-{step}", step=step, keep=keep)


def _no_collator(_: Any) -> Any:
    raise AssertionError("batches come whole from our own loader")


def _not_finite(what: str, value: float, *, step: int) -> JobError:
    return JobError(
        f"the {what} became {value} at step {step}: lower train.learning_rate, lengthen train.warmup, or set "
        "precision: fp32",
        failure="NaN",
    )
