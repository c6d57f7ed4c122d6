"""Checkpoints: whole or not there, and never of another run."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.checkpoints import Checkpoints
from runner.execution.failures import RETRIES
from runner.schema.errors import JobError

MINE = {"train.learning_rate": 1e-3, "data.train": "sha256:1", "train.betas": (0.9, 0.98)}


def written(kept: Checkpoints, step: int, *, keep: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    folder = kept.writing / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "weights").write_text(str(step))
    kept.publish(folder, step=step, keep=keep)


def names(kept: Checkpoints) -> set[str]:
    return {path.name for path in kept.folder.iterdir() if path.is_dir()} - {"writing"}


def test_the_last_and_the_kept_ones_stay(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    assert kept.last() is None
    for step, keep in ((9, {9}), (10, {9}), (11, {9})):
        written(kept, step, keep=keep)
    assert names(kept) == {"step-9", "step-11"}
    assert kept.last() == kept.of(11)


def test_a_step_is_written_again_after_a_kill_in_the_middle_of_tidying_up(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    written(kept, 5)
    written(kept, 5)
    assert (kept.of(5) / "weights").read_text() == "5"


def test_what_was_half_written_is_forgotten(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    written(kept, 5)
    (kept.writing / "checkpoint-6").mkdir()
    again = Checkpoints(tmp_path)
    assert again.last() == kept.of(5)
    assert list(again.writing.iterdir()) == []


def test_the_same_run_goes_on(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.check(MINE)
    kept.note("before.json", {"wer": 0.5})
    written(kept, 5)
    again = Checkpoints(tmp_path)
    again.check(dict(reversed(MINE.items())))
    assert again.noted("before.json") == {"wer": 0.5}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train.learning_rate", 2e-3, r"train.learning_rate was 0.001, is 0.002"),
        ("data.train", "sha256:2", r"data.train was 'sha256:1', is 'sha256:2'"),
        ("new", 1, r"new was None, is 1"),
    ],
)
def test_another_spec_or_other_data_is_refused(tmp_path: Path, key: str, value: object, said: str) -> None:
    kept = Checkpoints(tmp_path)
    kept.check(MINE)
    written(kept, 5)
    with pytest.raises(JobError, match=rf"are of another run: {said}; remove that folder") as caught:
        Checkpoints(tmp_path).check({**MINE, key: value})
    assert RETRIES[caught.value.failure].resumes  # an apply that begins anew would delete what is good elsewhere
    Checkpoints(tmp_path).check(MINE)


def test_a_run_without_a_checkpoint_makes_way(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.check(MINE)
    kept.note("before.json", {"wer": 0.5})
    kept.check({**MINE, "data.train": "sha256:2"})
    assert kept.noted("before.json") is None
