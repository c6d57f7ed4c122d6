"""What a run's history says: the best measurement, whether more is worth the wait, whether the model writes yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BLANKS = 0.99  # share of blank frames from which a model says nothing
PLATEAU_STEPS = 500  # in which a CTC model may say nothing: every one does at first, at a loss near 3
PLATEAU_SHARE = 0.3  # of a longer run, the same

Row = Mapping[str, Any]


def measured(history: Sequence[Row]) -> list[Row]:
    """The measurements of a Trainer's history, in order."""
    return [row for row in history if "wer" in row]


def best(history: Sequence[Row]) -> Row | None:
    """The first one with the fewest wrong words; characters and loss decide among equals."""
    return min(measured(history), key=lambda row: (row["wer"], row["cer"], row["validation_loss"]), default=None)


def waited(history: Sequence[Row]) -> int:
    """Measurements since the best one."""
    found, top = measured(history), best(history)
    return len(found) - 1 - found.index(top) if top is not None else 0


def plateau(row: Row, *, step: int, steps: int) -> str | None:
    """What to say of a model that writes nothing yet; None when it writes."""
    if row["blank_ratio"] < BLANKS:
        return None
    normal = max(PLATEAU_STEPS, round(PLATEAU_SHARE * steps))
    if step <= normal:
        return f"all blanks: normal for CTC until about step {normal}, at a loss near 3"
    return (
        f"all blanks after {step} steps, which is no longer normal: try a higher train.learning_rate, a longer "
        "train.warmup, train.shortest_first, or look whether the texts belong to the recordings"
    )


def line(row: Row, *, steps: int) -> str:
    """One measurement for people."""
    return (
        f"step {row['step']}/{steps}: loss {row['loss']:.3f}, validation loss {row['validation_loss']:.3f}, "
        f"WER {row['wer']:.1%}, CER {row['cer']:.1%}, blanks {row['blank_ratio']:.0%}, "
        f"gradient norm {row['grad_norm']:.2f}"
    )
