"""Curves: TensorBoard has every step, those before a kill too; a service that is missing or fails is told."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback

from runner.llm.training import tracking
from runner.llm.training.evaluate import Examiner
from runner.schema.errors import JobError
from tests.llm.training import small
from tests.llm.training.small import EndedError, Heard


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read = EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    return {name: [(one.step, one.value) for one in read.Scalars(name)] for name in read.Tags()["scalars"]}


def test_tensorboard_has_every_step_of_a_run_that_was_killed(tmp_path: Path) -> None:
    listed, examiner = small.steps(6), Examiner(small.steps(1, seed=9))
    changed = {"every_steps": 2, "examiner": examiner, "track": ("tensorboard",)}
    with pytest.raises(EndedError):
        small.fit(
            tmp_path / "a", small.model(), listed, heard=Heard(end_at=10), track_folder=tmp_path / "first", **changed
        )
    done = small.fit(tmp_path / "a", small.model(), listed, track_folder=tmp_path / "second", **changed)
    found = curves(tmp_path / "second")
    losses = [(row["step"], pytest.approx(row["loss"])) for row in small.journal(tmp_path / "a")]
    assert found["train/loss"] == losses
    assert found["eval/loss"] == [(r["step"], pytest.approx(r["validation_loss"])) for r in done.history]
    assert [step for step, _ in found["train/tokens_per_s"]] == [5, 6]


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_service_that_is_not_installed_ends_the_run_before_it_begins(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    with pytest.raises(JobError, match=f"track: '{name}' needs the package {name}, which is not installed") as caught:
        small.fit(tmp_path, small.model(), small.steps(2), track=(name,))
    assert caught.value.failure == "Infeasible"


class Far(TrainerCallback):
    """A service that fails at an event."""

    def __init__(self, at: str) -> None:
        self.heard: list[str] = []
        self._at = at

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._say("on_train_begin")

    def on_log(self, *_: Any, **__: Any) -> None:
        self._say("on_log")

    def _say(self, event: str) -> None:
        self.heard.append(event)
        if event == self._at:
            raise ConnectionError("no route\nat all")


def serving(monkeypatch: pytest.MonkeyPatch, at: str) -> Far:
    far = Far(at)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(__spec__=object()))
    monkeypatch.setattr(tracking, "SERVICES", {"wandb": lambda: far})
    monkeypatch.setattr(tracking, "find_spec", lambda _: object())
    return far


def test_a_service_that_cannot_begin_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serving(monkeypatch, "on_train_begin")
    with pytest.raises(
        JobError, match="track: 'wandb' could not begin: ConnectionError: no route; see to its"
    ) as caught:
        small.fit(tmp_path, small.model(), small.steps(2), track=("wandb",))
    assert caught.value.failure == "Infeasible"


def test_a_service_that_fails_later_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far, heard = serving(monkeypatch, "on_log"), Heard()
    done = small.fit(tmp_path, small.model(), small.steps(2), track=("wandb",), heard=heard)
    assert done.steps == 2
    assert far.heard == ["on_train_begin", "on_log"]
    assert "track: wandb failed and hears no more of this run: ConnectionError: no route" in heard.lines
