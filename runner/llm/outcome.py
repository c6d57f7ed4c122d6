"""What is said of a training run: figures, tables, plots and notes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from runner.context import LedgerLine, Plot, Result, Table
from runner.llm.data.skipped import Skipped
from runner.llm.lessons import Lessons
from runner.llm.model.prepared import Prepared
from runner.llm.packing.pieces import Cut
from runner.llm.training.session import Done

LAST = 0.1  # share of the steps whose mean loss stands for the end of the training
LISTED = 20


def result(
    *,
    prepared: Prepared,
    done: Done,
    rows: Sequence[Mapping[str, Any]],
    cut: Cut,
    learned: Lessons,
    lines: Sequence[LedgerLine],
    said: Sequence[str],
    timings: Mapping[str, float],
) -> Result:
    """All of it. ``rows``: those of training.jsonl, a step each; ``said``: how the texts were read."""
    return Result(
        metrics={
            **figures(done, rows),
            **_counts(prepared=prepared, done=done, cut=cut, learned=learned),
        },
        ledger=(*prepared.ledger, *lines),
        tables=tuple(_tables(done, learned.skipped)),
        plots=tuple(_plots(done, rows)),
        timings=timings,
        notes=tuple(_notes(done, said)),
    )


def figures(done: Done, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Losses in nats a token: of the last tenth of the steps, and on the validation data where the weights are from."""
    last = rows[-max(1, math.ceil(LAST * len(rows))) :]
    targets = sum(row["targets"] for row in last)
    found: dict[str, Any] = {"training_loss": sum(row["loss"] * row["targets"] for row in last) / targets}
    kept = [row for row in done.history if row["step"] == (done.best or done.steps) and "validation_loss" in row]
    if kept:
        found["validation_loss"] = kept[-1]["validation_loss"]
        found["validation_perplexity"] = math.exp(min(kept[-1]["validation_loss"], 700.0))
    return found


def _counts(
    *,
    prepared: Prepared,
    done: Done,
    cut: Cut,
    learned: Lessons,
) -> dict[str, Any]:
    return {
        "steps": done.steps,
        "best_step": done.best or done.steps,
        "documents_train": sum(map(len, learned.train)),
        "documents_validation": sum(map(len, learned.validation)),
        "documents_skipped": learned.skipped.total,
        "documents_cut": asdict(cut),
        "tokens_train": sum(int(one.lengths.sum()) for one in learned.train),
        "targets_train": sum(int(one.targets.sum()) for one in learned.train),
        "parameters": prepared.parameters,
        "trainable_parameters": prepared.trainable,
    }


def _tables(done: Done, skipped: Skipped) -> list[Table]:
    found = []
    measured = [row for row in done.history if "validation_loss" in row]
    if measured:
        names = ("step", "validation_loss", "validation_perplexity")
        rows = [tuple(row.get(name) for name in names) for row in measured]
        note = f"the weights are those of step {done.best or done.steps}"
        found.append(Table(title="Measurements", columns=names, rows=rows, note=note))
    samples = [(row["step"], one["prompt"], one["answer"]) for row in done.history for one in row.get("samples", ())]
    if samples:
        columns = ("step", "prompt", "answer")
        found.append(Table(title="Answers while it learned", columns=columns, rows=samples, note="greedy"))
    if skipped.total:
        listed = [
            (reason, count, "; ".join(skipped.examples.get(reason, ()))) for reason, count in skipped.counts.items()
        ]
        columns = ("reason", "samples", "for example")
        found.append(Table(title="Left out", columns=columns, rows=listed[:LISTED], note="all are in skipped.jsonl"))
    return found


def _plots(done: Done, rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    steps = [row["step"] for row in rows]
    found = [
        Plot(title=title, kind="scatter", x=steps, y=[row[name] for row in rows], x_label="step", y_label=unit)
        for title, name, unit in (
            ("Loss on the training data", "loss", "nats a token"),
            ("Length of the gradient", "grad_norm", "before it is clipped"),
        )
    ]
    measured = [row for row in done.history if "validation_loss" in row]
    if measured:
        x, y = [row["step"] for row in measured], [row["validation_loss"] for row in measured]
        title = "Loss on the validation data"
        found.append(Plot(title=title, kind="scatter", x=x, y=y, x_label="step", y_label="nats a token"))
    return found


def _notes(done: Done, said: Sequence[str]) -> list[str]:
    found = list(said)
    if done.stopped:
        found.append(f"stopped after {done.steps} of {done.planned} steps: {done.why}")
    return found
