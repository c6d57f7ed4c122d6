"""What the report shows of a transcription: the per-file table, errors by word, and the ledger."""

from __future__ import annotations

from typing import Any

from runner.asr.batches import Plan
from runner.asr.score import Scores
from runner.asr.sizing import Sizing
from runner.asr.writer import TABLE_ROWS, Summary
from runner.context import LedgerLine, Plot, Table

Fields = dict[str, Any]
COLUMNS = ("recording", "part", "status", "text", "confidence", "seconds", "reference", "wrong words")


def tables(summary: Summary, *, scored: Scores | None, name: str = "transcripts.jsonl") -> tuple[Table, ...]:
    """The recordings, failed ones first; then, with references, the worst of them and the words most confused.

    ``name`` is the file that has all recordings.
    """
    rows = [*summary.failed_rows, *summary.other_rows][:TABLE_ROWS]
    parts = any(row[1] for row in rows)
    used = [i for i, name in enumerate(COLUMNS) if (name != "part" or parts) and (i < 6 or scored is not None)]
    note = f"the first {len(rows)} of {summary.files}; all are in {name}" if len(rows) < summary.files else ""
    shown = Table(
        title="Recordings",
        columns=tuple(COLUMNS[i] for i in used),
        rows=[tuple(row[i] for i in used) for row in rows],
        note=note,
        audio=COLUMNS[0],
        clips=summary.clips,
    )
    return (shown, *(_errors(scored) if scored else ()))


def _errors(scored: Scores) -> list[Table]:
    rates = [
        (
            str(r.convention),
            what,
            rate.rate,
            *(rate.interval or (None, None)),
            rate.counts.errors,
            rate.counts.references,
        )
        for r in scored.rates
        for what, rate in (("words", r.words), ("characters", r.characters))
    ]
    columns = ("convention", "of", "error rate", "from", "to", "errors", "references")
    found = [Table(title="Error rates", columns=columns, rows=rates, note="95% bootstrap intervals over recordings")]
    if scored.worst:
        worst = [(w.key, w.words.errors, w.words.references, w.reference, w.hypothesis) for w in scored.worst]
        shown = ("recording", "wrong words", "words", "said", "heard")
        found.append(Table(title="Worst recordings", columns=shown, rows=list(worst)))
    if scored.confusions:
        rows = [(c.reference or "(nothing)", c.hypothesis or "(nothing)", c.count) for c in scored.confusions]
        found.append(Table(title="Words confused", columns=("said", "heard", "times"), rows=list(rows)))
    return found


def plots(summary: Summary) -> tuple[Plot, ...]:
    """How sure the model was of the recordings, and where the time went."""
    tenths = range(10)
    sure = Plot(
        title="Confidence",
        kind="bar",
        x=[f"{tenth / 10:.1f}" for tenth in tenths],
        y=[float(summary.confidences[tenth]) for tenth in tenths],
        x_label="mean confidence of a recording, from",
        y_label="recordings",
    )
    stages = sorted(summary.stages)
    spent = Plot(
        title="Time by stage",
        kind="bar",
        x=list(stages),
        y=[summary.stages[stage] / 1000 for stage in stages],
        x_label="stage",
        y_label="seconds, summed over workers",
    )
    return (*((sure,) if summary.confidences else ()), spent)


def ledger(about: Fields, *, plan: Plan, size: Sizing) -> tuple[LedgerLine, ...]:
    """What was done for speed, and why; ``about`` is what the workers said."""
    if not about:
        return ()
    lines = [
        LedgerLine(what="precision", where="model", applied=True, why=_precision(about, windows=len(plan.order))),
        LedgerLine(what="batching", where="windows", applied=len(plan) < len(plan.order), why=_batching(plan, size)),
        LedgerLine(what="attention", where="encoder", applied=True, why=f"{about['attention']}, mask {about['mask']}"),
        _packing(about),
    ]
    if about.get("halvings"):
        lines.append(_halved(about))
    return tuple(lines)


def _precision(about: Fields, *, windows: int) -> str:
    chosen = f"{about['precision']}: {about['precision_why']}"
    if not about.get("again"):
        return chosen
    return f"{chosen}; {about['again']} of {windows} windows computed again in fp32, as their text hung on rounding"


def _batching(plan: Plan, size: Sizing) -> str:
    return (
        f"{len(plan.order)} windows sorted by length into {len(plan)} batches of at most {size.seconds:g} s "
        f"({size.why}); {plan.padding:.1%} padding"
    )


def _packing(about: Fields) -> LedgerLine:
    why = {
        "packed": "windows one behind another in one row: no padding is computed, nor a mask",
        "one by one": "this family's windows go through the model alone on CPUs: none is padded to another's length",
        "padded": "on GPUs batches are padded, and their output cut to each window's true length",
    }[about["layout"]]
    return LedgerLine(what="packing", where="batches", applied=about["layout"] == "packed", why=why)


def _halved(about: Fields) -> LedgerLine:
    most = about.get("most")
    kept = f"; batches are kept to {most} padded samples" if most else ""
    times = "once" if about["halvings"] == 1 else f"{about['halvings']} times"
    why = f"memory ran out {times}{kept}"
    return LedgerLine(what="batch halving", where="batches", applied=True, why=why)
