"""When to measure, when to save, when to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from runner.llm.training.recipe import Recipe
from runner.tell import Tell

Row = Mapping[str, Any]
LOSS = "validation_loss"


class Pace(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """It holds no state: the Trainer's history does, and that is in every checkpoint."""

    def __init__(self, *, total: int, recipe: Recipe, tell: Tell) -> None:
        self._total = total
        self._every = recipe.every_steps or max(1, total // 10)
        self._save = recipe.save_every_steps or self._every
        self._recipe = recipe
        self._tell = tell

    def on_train_begin(self, _: Any, state: TrainerState, control: TrainerControl, **__: Any) -> None:
        """Begin, or go on after a kill: maybe all is done."""
        control.should_training_stop = self.why(state) is not None

    def on_substep_end(self, _: Any, state: TrainerState, control: TrainerControl, **__: Any) -> None:
        """Between two forward passes."""
        self._tell.check()

    def on_step_end(self, _: Any, state: TrainerState, control: TrainerControl, **__: Any) -> None:
        """Every step is told; some are measured, some saved."""
        self._tell.check()
        step = state.global_step
        control.should_log = True
        control.should_evaluate = step % self._every == 0 or step >= self._total
        control.should_save = step % self._save == 0 or step >= self._total

    def on_evaluate(self, _: Any, state: TrainerState, control: TrainerControl, **__: Any) -> None:
        """A new best is kept, and the last is."""
        if state.global_step == 0:
            return
        if self.best(state) == state.global_step:
            control.should_save = True
        if self.why(state) is not None:
            control.should_save = control.should_training_stop = True

    def best(self, state: TrainerState) -> int | None:
        """The step whose weights the run would end with, where that is not the last."""
        return best(state.log_history) if self._recipe.best else None

    def why(self, state: TrainerState) -> str | None:
        """Why nothing is left to do after ``state``."""
        if state.global_step >= self._total:
            return f"all {self._total} steps are done"
        patience = self._recipe.patience
        if patience is not None and waited(state.log_history) >= patience:
            return f"no lower validation loss in {patience} measurements"
        return None


def best(history: Sequence[Row]) -> int | None:
    """The first step with the lowest validation loss; None where none was measured. What was before the first step
    does not compete: a run keeps what it learned."""
    measured = [(row[LOSS], row["step"]) for row in history if LOSS in row and row["step"]]
    return min(measured)[1] if measured else None


def waited(history: Sequence[Row]) -> int:
    """Measurements since the best."""
    step = best(history)
    return sum(1 for row in history if LOSS in row and row["step"] > step) if step is not None else 0
