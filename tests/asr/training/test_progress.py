"""Reading a run's history: the best, the wait, and the plateau of blanks."""

from __future__ import annotations

from typing import Any

from runner.asr.training import progress


def row(step: int, *, wer: float = 1.0, cer: float = 1.0, loss: float = 3.0, blanks: float = 0.8) -> dict[str, Any]:
    return {"step": step, "wer": wer, "cer": cer, "validation_loss": loss, "blank_ratio": blanks}


def test_words_then_characters_then_loss_decide_and_the_first_of_equals_wins() -> None:
    rows = [
        row(1),
        row(2, cer=0.8),
        row(3, wer=0.9, cer=0.9, loss=9),
        row(4, wer=0.9, cer=0.9),
        row(5, wer=0.9, cer=0.9),
    ]
    assert progress.best(rows[:1]) == rows[0]
    assert progress.best(rows[:2]) == rows[1]
    assert progress.best(rows) == rows[3]
    assert progress.waited(rows) == 1
    assert progress.waited(rows[:4]) == 0


def test_a_history_without_measurements_has_no_best() -> None:
    assert progress.best([{"step": 3, "train_runtime": 1.0}]) is None
    assert progress.waited([]) == 0


def test_the_plateau_is_named_while_it_is_normal_and_flagged_when_it_lasts() -> None:
    silent = row(200, blanks=1.0)
    assert progress.plateau(silent, step=200, steps=1000) == (
        "all blanks: normal for CTC until about step 500, at a loss near 3"
    )
    late = progress.plateau(silent, step=501, steps=1000)
    assert late is not None
    assert "no longer normal" in late
    assert "train.learning_rate" in late
    long = progress.plateau(silent, step=501, steps=10_000)
    assert long is not None
    assert "until about step 3000" in long
    assert progress.plateau(row(200), step=200, steps=1000) is None
