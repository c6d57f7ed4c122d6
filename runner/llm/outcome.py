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
POINTS = 2000  # of a plot: two of 100,000 steps are 17 MB of a page, and 200,000 circles that a browser draws
ANSWERS = 200


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
            **_counts(prepared=prepared, done=done, rows=rows, cut=cut, learned=learned),
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
    rows: Sequence[Mapping[str, Any]],
    cut: Cut,
    learned: Lessons,
) -> dict[str, Any]:
    """``_train``: what the data hold, which is not known of a stream; ``_learned``: what the steps were made of."""
    held = {
        "documents_train": sum(map(len, learned.train)),
        "tokens_train": sum(int(one.lengths.sum()) for one in learned.train),
        "targets_train": sum(int(one.targets.sum()) for one in learned.train),
    }
    return {
        "steps": done.steps,
        "best_step": done.best or done.steps,
        **(held if learned.blocks is None else {}),
        "documents_validation": sum(map(len, learned.validation)),
        "documents_skipped": learned.skipped.total,
        "documents_cut": asdict(cut),
        "tokens_learned": sum(row["tokens"] for row in rows),
        "targets_learned": sum(row["targets"] for row in rows),
        "parameters": prepared.parameters,
        "trainable_parameters": prepared.trainable,
    }


def _tables(done: Done, skipped: Skipped) -> list[Table]:
    found = []
    measured = [row for row in done.history if "validation_loss" in row]
    if measured:
        names = ("step", "validation_loss", "validation_perplexity")
        shown, of = _thinned(measured)
        rows = [tuple(row.get(name) for name in names) for row in shown]
        note = f"the weights are those of step {done.best or done.steps}{of}"
        found.append(Table(title="Measurements", columns=names, rows=rows, note=note))
    samples = [(row["step"], one["prompt"], one["answer"]) for row in done.history for one in row.get("samples", ())]
    if samples:
        columns = ("step", "prompt", "answer")
        last = f"; the last {ANSWERS} of {len(samples):,}, all are in samples.jsonl" if len(samples) > ANSWERS else ""
        note = f"greedy{last}"
        found.append(Table(title="Answers while it learned", columns=columns, rows=samples[-ANSWERS:], note=note))
    if skipped.total:
        listed = [
            (reason, count, "; ".join(skipped.examples.get(reason, ()))) for reason, count in skipped.counts.items()
        ]
        columns = ("reason", "samples", "for example")
        found.append(Table(title="Left out", columns=columns, rows=listed[:LISTED], note="all are in skipped.jsonl"))
    return found


def _plots(done: Done, rows: Sequence[Mapping[str, Any]]) -> list[Plot]:
    shown, of = _thinned(rows)
    steps, label = [row["step"] for row in shown], f"step{of}"
    found = [
        Plot(title=title, kind="scatter", x=steps, y=[row[name] for row in shown], x_label=label, y_label=unit)
        for title, name, unit in (
            ("Loss on the training data", "loss", "nats a token"),
            ("Length of the gradient", "grad_norm", "before it is clipped"),
        )
    ]
    measured = [row for row in done.history if "validation_loss" in row]
    if measured:
        shown, of = _thinned(measured)
        x, y = [row["step"] for row in shown], [row["validation_loss"] for row in shown]
        title = "Loss on the validation data"
        found.append(Plot(title=title, kind="scatter", x=x, y=y, x_label=f"step{of}", y_label="nats a token"))
    return found


def _thinned(rows: Sequence[Mapping[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], str]:
    """At most ``POINTS`` of them, equally far apart, the last among them; and what is said of it."""
    apart = math.ceil(len(rows) / POINTS)
    return (rows[(len(rows) - 1) % apart :: apart], f", one in {apart} is shown") if apart > 1 else (rows, "")


def _notes(done: Done, said: Sequence[str]) -> list[str]:
    found = list(said)
    if done.stopped:
        found.append(f"stopped after {done.steps} of {done.planned} steps: {done.why}")
    return found
