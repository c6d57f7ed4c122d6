"""One run from the first step, or the last whole checkpoint, to the weights that are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from transformers import TrainerState, TrainingArguments, set_seed

from runner import ranks
from runner.checkpoints import Checkpoints
from runner.llm.packing.step import Step, Steps
from runner.llm.training import loop, peak, tracking
from runner.llm.training.arguments import arguments
from runner.llm.training.evaluate import Examiner
from runner.llm.training.journal import Journal
from runner.llm.training.meter import Meter
from runner.llm.training.pace import Pace
from runner.llm.training.recipe import Recipe
from runner.llm.training.stops import Stops
from runner.llm.training.watch import Watch
from runner.tell import Tell

STATE = "trainer_state.json"
RANDOM = "rng_state*.pth"  # one for each process that wrote a checkpoint


class Prepared(Protocol):
    """What `runner.llm.model.begin.prepare` gives, as far as it is trained here."""

    @property
    def model(self) -> Any:
        """On its device, patched, with its adapter."""
        ...

    @property
    def operations(self) -> Callable[[Step], float] | None:
        """Of the forward and backward pass of a step, in all processes; None: not known."""
        ...


class Strategy(Protocol):
    """How several processes share one model; see `runner.llm.distribution`."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Fields of transformers' TrainingArguments."""
        ...

    def settle(self, arguments: TrainingArguments) -> None:
        """What TrainingArguments have no field for, before a Trainer is made of them."""
        ...

    def full_state(self, trainer: loop.Trainer) -> dict[str, Tensor] | None:
        """The whole trained weights in the first process; every process calls it. None: the model holds them."""
        ...


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a run left behind; the model holds its weights."""

    history: list[dict[str, Any]]  # a row a measurement: step, loss, grad_norm, ..., validation_loss
    best: int | None  # step whose weights the model holds, where that is not the last
    steps: int  # taken
    planned: int
    stopped: bool  # before the last
    why: str  # it ended
    state: dict[str, Tensor] | None  # whole weights of a model that is shared among processes, in the first


def train(
    prepared: Prepared,
    steps: Steps,
    *,
    recipe: Recipe,
    checkpoints: Checkpoints,
    tell: Tell,
    device: str,
    strategy: Strategy,
    examiner: Examiner | None = None,
    track: tuple[str, ...] = (),
    track_folder: Path | None = None,
) -> Done:
    """Train in place, from the last checkpoint if there is one; the model ends with the weights that are kept.

    `training.jsonl` and `speed.jsonl` grow beside the checkpoints. ``track`` names who else hears of every step,
    TensorBoard into ``track_folder``. Raises JobError (NaN, DataInvalid, Infeasible).
    """
    first = ranks.rank() == 0
    followers = track if first else ()
    tracking.check(followers)
    last = checkpoints.last()
    state = TrainerState() if last is None else TrainerState.load_from_json(str(last / STATE))
    journal = Journal(checkpoints.folder if first else None)
    journal.begin(state.global_step)
    stops = Stops(precision=recipe.precision)
    stops.begin(journal.rows())
    known = prepared.operations
    rate = None if known is None else peak.measure(device, recipe.precision)
    meter = Meter(operations=known, peak=rate, device=device)
    more = {"eval_on_start": examiner is not None, **strategy.arguments}
    told = arguments(recipe, steps=steps.total, device=device, folder=checkpoints.writing, more=more)
    strategy.settle(told)
    trainer = loop.Trainer(
        prepared.model,
        told,
        steps=steps,
        recipe=recipe,
        checkpoints=checkpoints,
        pace=Pace(total=steps.total, recipe=recipe, tell=tell),
        watch=Watch(total=steps.total, journal=journal, meter=meter, stops=stops, tell=tell),
        examiner=examiner,
        callbacks=tracking.callbacks(
            followers, folder=track_folder, steps=journal.rows(), history=state.log_history, say=tell.log
        ),
    )
    set_seed(recipe.seed + ranks.rank())  # each process drops others
    if last is not None:
        tell.log(f"goes on after step {state.global_step} of {steps.total}{_otherwise(last)}")
    elif rate is not None:
        tell.log(f"MFU is a share of {rate.rate / 1e12:.3g} TFLOP/s, measured on this {rate.device}")
    try:
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    finally:
        journal.close()
    return _done(trainer, checkpoints, strategy)


def _done(trainer: loop.Trainer, checkpoints: Checkpoints, strategy: Strategy) -> Done:
    state, pace = trainer.state, trainer.pace
    best = pace.best(state)
    if best is not None and best != state.global_step:
        trainer.load(checkpoints.of(best))
    whole = strategy.full_state(trainer)
    trainer.unwrap()
    why = pace.why(state)
    assert why is not None, "a run ends for a reason"
    return Done(
        history=json.loads(json.dumps(state.log_history, sort_keys=True)),  # as a checkpoint gives it back
        best=best,
        steps=state.global_step,
        planned=trainer.steps.total,
        stopped=state.global_step < trainer.steps.total,
        why=why,
        state=whole,
    )


def _otherwise(last: Path) -> str:
    """What to say when the checkpoint ``last`` was written by another number of processes."""
    before, now = len(list(last.glob(RANDOM))), ranks.size()
    return "" if before == now else f" with {now} processes instead of {before}: the same steps with other dropout"
