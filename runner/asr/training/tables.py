"""What the report shows of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from runner.asr.score import Scores
from runner.asr.training.corpus import Corpus
from runner.asr.training.evaluation import Evaluation
from runner.asr.training.loop import Run
from runner.context import Plot, Table

WORST = 20
STEPS_S = (2.0, 4.0, 8.0, 16.0)  # bounds of the length groups, in seconds

Fields = dict[str, Any]


def lengths(corpus: Corpus) -> list[str]:
    """The length group of each clip: `2 to 4 s`."""
    names = [f"under {STEPS_S[0]:g} s", *(f"{a:g} to {b:g} s" for a, b in pairwise(STEPS_S))]
    names.append(f"{STEPS_S[-1]:g} s and more")
    seconds = (one.recording.samples / corpus.rate for one in corpus.utterances)
    return [names[sum(length >= bound for bound in STEPS_S)] for length in seconds]


def summary(scores: Scores) -> Fields:
    """The rates of one measurement as JSON, so that a resumed run need not measure its base again."""
    return {"metrics": scores.metrics(), "intervals": {name: list(pair) for name, pair in scores.intervals().items()}}


def before_after(before: Fields | None, after: Fields) -> Table:
    """Error rates of the model that training began with, and of what it became."""
    rows = []
    for when, found in (("before", before), ("after", after)):
        if found is None:
            continue
        for name in ("wer", "cer", "wer_leaderboard", "cer_leaderboard"):
            counts = found["metrics"][f"{name}_counts"]
            wrong = counts["substitutions"] + counts["deletions"] + counts["insertions"]
            low, high = found["intervals"].get(name, (None, None))
            rows.append((name, when, found["metrics"][name], low, high, wrong, counts["references"]))
    columns = ("rate", "when", "value", "from", "to", "errors", "references")
    return Table(title="Error rates", columns=columns, rows=rows, note="95% bootstrap intervals over clips")


def worst(corpus: Corpus, found: Evaluation) -> list[Table]:
    """The clips with most wrong words, and the words most confused."""
    tables = []
    if found.scores.worst:
        paths = {one.recording.key: one.recording.fields()["path"] for one in corpus.utterances}
        rows = [
            (paths[one.key], one.words.errors, one.words.references, one.reference, one.hypothesis)
            for one in found.scores.worst[:WORST]
        ]
        columns = ("recording", "wrong words", "words", "said", "heard")
        tables.append(Table(title="Worst clips", columns=columns, rows=list(rows), audio="recording"))
    if found.scores.confusions:
        words = [(c.reference or "(nothing)", c.hypothesis or "(nothing)", c.count) for c in found.scores.confusions]
        shown = ("said", "heard", "times")
        tables.append(Table(title="Words confused", columns=shown, rows=list(words[:WORST])))
    return tables


def curve(run: Run) -> Table:
    """Every measurement of the run."""
    names = ("step", "loss", "validation_loss", "wer", "cer", "blank_ratio", "grad_norm", "learning_rate")
    rows = [tuple(row[name] for name in names) for row in run.history]
    return Table(title="Measurements", columns=names, rows=rows, note=f"the model is that of step {run.best}")


def plots(history: Sequence[Mapping[str, Any]]) -> tuple[Plot, ...]:
    """Loss and error rate over the steps."""
    steps = [row["step"] for row in history]
    return tuple(
        Plot(title=title, kind="scatter", x=steps, y=[row[name] for row in history], x_label="step", y_label=unit)
        for title, name, unit in (
            ("Loss on the training clips", "loss", "CTC loss per character"),
            ("Loss on the validation clips", "validation_loss", "CTC loss per character"),
            ("Word error rate on the validation clips", "wer", "wrong words per word"),
        )
    )
