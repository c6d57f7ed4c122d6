"""What is said of a training run: figures, tables, plots, ledger and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from runner.asr.training.corpus import Corpus
from runner.asr.training.evaluation import Judged
from runner.asr.training.loop import Run
from runner.asr.training.network import has_convolutions
from runner.asr.training.progress import BLANKS
from runner.asr.training.recipe import Lora
from runner.asr.training.session import Learner
from runner.context import LedgerLine, Plot, Table
from runner.precision import Precision

WORST = 20
BEFORE = ("wer", "cer")  # figures of the base that are set beside the new ones
RATES = ("wer", "cer", "wer_leaderboard", "cer_leaderboard")


def counts(data: Corpus, validation: Corpus, learner: Learner, run: Run) -> dict[str, Any]:
    """How much was trained on what."""
    return {
        "steps": run.steps,
        "best_step": run.best,
        "measurements": len(run.history),
        "clips_train": len(data),
        "clips_validation": len(validation),
        "audio_train_s": round(data.seconds, 3),
        "audio_validation_s": round(validation.seconds, 3),
        "parameters": sum(one.numel() for one in learner.model.parameters()),
        "vocabulary": len(learner.spelling.alphabet.texts),
    }


def rates(before: Judged | None, after: Judged) -> dict[str, Any]:
    """Error rates with their counts, and `wer_before`, `cer_before`."""
    was = {} if before is None else before.scores.metrics()
    return {**after.scores.metrics(), **{f"{name}_before": was[name] for name in BEFORE if name in was}}


def intervals(before: Judged | None, after: Judged) -> dict[str, tuple[float, float]]:
    """95% intervals by the names of ``rates``."""
    was = {} if before is None else before.scores.intervals()
    return {**after.scores.intervals(), **{f"{name}_before": was[name] for name in BEFORE if name in was}}


def ledger(
    learner: Learner, chosen: Precision, run: Run, *, freeze: bool, lora: Lora | None, checkpointing: bool
) -> tuple[LedgerLine, ...]:
    """What was done to save time and memory."""
    why = f"{chosen.name}: {chosen.why}; weights and measurements in fp32"
    lines = [LedgerLine(what="precision", where="training", applied=True, why=why)]
    last = learner.features_last
    why = "features last in memory: no transposes around LayerNorm" if last else "only for LayerNorm, and on CPUs"
    lines.append(LedgerLine(what="layout", where="feature encoder", applied=last, why=why))
    if freeze:
        found = has_convolutions(learner.model)
        why = "its convolutions are left as they are: no gradients for them" if found else "a mel front end has none"
        lines.append(LedgerLine(what="freezing", where="feature encoder", applied=found, why=why))
    if lora is not None:
        why = f"rank {lora.r} beside the encoder's linear layers; merged into the weights at the end"
        lines.append(LedgerLine(what="lora", where="encoder", wanted="required", applied=True, why=why))
    if checkpointing:
        why = "activations are computed again instead of kept"
        lines.append(LedgerLine(what="checkpointing", where="encoder", wanted="required", applied=True, why=why))
    number = processes(run)[-1]
    if number > 1:
        why = f"{number} processes share the clips of each batch and add up their gradients"
        lines.append(LedgerLine(what="processes", where="training", wanted="required", applied=True, why=why))
    return tuple(lines)


def processes(run: Run) -> list[int]:
    """How many processes took the steps, in order; more than one number when it changed on the way."""
    return [number for number, _ in groupby(row.get("processes", 1) for row in run.history)]


def notes(learner: Learner, run: Run) -> tuple[str, ...]:
    """What a reader must know."""
    found = [
        f"the model is the best of {len(run.history)} measurements on these validation clips, that of step "
        f"{run.best}: on others expect a little more errors"
    ]
    if learner.base is not None and learner.was is None:
        found.append(
            "the model that training began with had no trained head with a vocabulary: it wrote nothing that could be "
            "measured before"
        )
    elif learner.base is not None and not learner.comparable:
        found.append(
            "the model that training began with writes other characters, so its errors were not measured: for them, "
            "transcribe the validation table with it (asr-transcribe)"
        )
    if run.stopped_early:
        found.append(f"stopped after {run.steps} of {run.planned} steps: no measurement was better for a while")
    if run.history[-1]["blank_ratio"] >= BLANKS:
        found.append("the model writes nothing yet: it needs more steps, or a higher learning rate")
    numbers = processes(run)
    if len(numbers) > 1:
        found.append(
            f"{', then '.join(map(str, numbers))} processes shared the steps: an unbroken run has other random masks"
        )
    return tuple(found)


def tables(corpus: Corpus, run: Run, *, before: Judged | None, after: Judged) -> tuple[Table, ...]:
    """Error rates, by group and by word, the worst clips, and every measurement."""
    was = None if before is None else before.groups
    return (
        before_after(before, after),
        after.groups.table(before=was),
        after.groups.words(before=was),
        worst(corpus, after),
        measurements(run),
    )


def before_after(before: Judged | None, after: Judged) -> Table:
    """Error rates of the model that training began with, and of what it became."""
    rows = []
    for when, found in (("before", before), ("after", after)):
        if found is None:
            continue
        values, intervals = found.scores.metrics(), found.scores.intervals()
        for name in RATES:
            counts = values[f"{name}_counts"]
            wrong = counts["substitutions"] + counts["deletions"] + counts["insertions"]
            low, high = intervals.get(name, (None, None))
            rows.append((name, when, values[name], low, high, wrong, counts["references"]))
    columns = ("rate", "when", "value", "from", "to", "errors", "references")
    return Table(title="Error rates", columns=columns, rows=list(rows), note="95% bootstrap intervals over clips")


def worst(corpus: Corpus, found: Judged) -> Table:
    """The clips with most wrong words."""
    paths = {one.recording.key: one.recording.fields()["path"] for one in corpus.utterances}
    rows = [
        (paths[one.key], one.words.errors, one.words.references, one.reference, one.hypothesis)
        for one in found.scores.worst[:WORST]
    ]
    columns = ("recording", "wrong words", "words", "said", "heard")
    return Table(title="Worst clips", columns=columns, rows=list(rows), audio="recording")


def measurements(run: Run) -> Table:
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
