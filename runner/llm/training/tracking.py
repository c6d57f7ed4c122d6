"""Curves outside the report: TensorBoard, and the services of others, which must never end a run that has begun."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback
from transformers.integrations import MLflowCallback, TensorBoardCallback, TrackioCallback, WandbCallback

from runner.llm.training.evaluate import PERPLEXITY
from runner.llm.training.pace import LOSS
from runner.schema.errors import JobError

SERVICES: Mapping[str, Callable[[], TrainerCallback]] = {
    "wandb": WandbCallback,
    "mlflow": MLflowCallback,
    "trackio": TrackioCallback,
}
TENSORBOARD = "tensorboard"
Row = Mapping[str, Any]


def check(names: Iterable[str]) -> None:
    """Refuse what is not installed. Raises JobError (Infeasible)."""
    for name in names:
        if name != TENSORBOARD and find_spec(name) is None:
            raise JobError(
                f"track: {name!r} needs the package {name}, which is not installed: `pip install {name}`, or leave it "
                "out",
                failure="Infeasible",
            )


def callbacks(
    names: Iterable[str],
    *,
    folder: Path | None,
    steps: Iterable[Row],
    history: Iterable[Row],
    say: Callable[[str], None],
) -> tuple[TrainerCallback, ...]:
    """Who is told of every step. ``steps`` and ``history`` are those of earlier attempts, which TensorBoard shows too.

    A service takes its project and its key from the environment.
    """
    found: list[TrainerCallback] = []
    for name in names:
        if name != TENSORBOARD:
            found.append(Service(name, say=say))
        elif folder is not None:
            found.append(TensorBoardCallback(_writer(folder / TENSORBOARD, steps, history)))
    return tuple(found)


def _writer(folder: Path, steps: Iterable[Row], history: Iterable[Row]) -> SummaryWriter:
    writer = SummaryWriter(str(folder))
    for row in steps:
        for name in ("loss", "grad_norm", "learning_rate"):
            writer.add_scalar(f"train/{name}", row[name], row["step"])
    for row in history:
        for name in (LOSS, PERPLEXITY):
            if name in row:
                writer.add_scalar(name.replace("validation_", "eval/"), row[name], row["step"])
    return writer


class Service(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """A callback of transformers. Where it cannot begin the run ends; where it fails later the run goes on alone."""

    def __init__(self, name: str, *, say: Callable[[str], None]) -> None:
        self._name = name
        self._say = say
        self._inner: TrainerCallback | None = SERVICES[name]()

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Raises JobError (Infeasible)."""
        assert self._inner is not None
        try:
            self._inner.on_train_begin(*args, **kwargs)
        except Exception as error:
            raise JobError(
                f"track: {self._name!r} could not begin: {_line(error)}; see to its settings in the environment, or "
                "leave it out",
                failure="Infeasible",
            ) from None

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """A step or a measurement."""
        self._pass("on_log", args, kwargs)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """The last word."""
        self._pass("on_train_end", args, kwargs)

    def _pass(self, event: str, args: Any, kwargs: Any) -> None:
        if self._inner is None:
            return
        try:
            getattr(self._inner, event)(*args, **kwargs)
        except Exception as error:  # whatever its client raises is told
            self._say(f"track: {self._name} failed and hears no more of this run: {_line(error)}")
            self._inner = None


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
