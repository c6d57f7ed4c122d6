"""`asr-align`: put recordings through a CTC model, find the best path of each one's text, write words with times."""

from __future__ import annotations

from functools import partial
from typing import Any

from runner.asr import portuguese, sweep, writer
from runner.asr.align import by_torchaudio as align_torchaudio
from runner.asr.align import report as align_report
from runner.asr.align.collector import AlignCollector
from runner.asr.align.engine import Aligner, Wanted
from runner.asr.align.report import Words
from runner.asr.pieces import Setup
from runner.asr.recordings import Clip
from runner.asr.sweep import Shape, Sweep
from runner.asr.tables import plots, tables
from runner.asr.writer import Summary
from runner.context import Context, Result
from runner.registry.family import Resolved
from runner.schema.errors import JobError
from runner.schema.jobs.asr_align import AsrAlign
from runner.schema.reference import is_reference

Fields = dict[str, Any]
NAME = "alignments.jsonl"


def run(spec: AsrAlign, ctx: Context) -> Result:
    """Align every recording of ``spec`` with its text; see ``runner.asr`` for the parts."""
    loading = spec.model.model_dump(include={"adapter", "allow_pickle", "trust_remote_code"})
    model = sweep.model(ctx, **loading)
    setup = _setup(spec, ctx, model, loading)
    wanted = Wanted(
        text=None if spec.text is None else portuguese.Settings(**spec.text.model_dump()),
        chars=spec.timestamps == "char",
    )
    heard = sweep.prepare(ctx, setup, _clips(spec, ctx), shape=_shape(spec), model_type=model.model_type)
    spool = heard.spool(ctx)
    try:
        collector = AlignCollector(spool, heard.layout, heard.found, setup, wanted=wanted)
        sweep.hear(ctx, heard, spool, collector, engine=partial(Aligner, wanted=wanted))
        summary = writer.write(
            spool,
            heard.found,
            out=ctx.out,
            records=ctx.records,
            formats=spec.outputs,
            rate=setup.source.rate,
            scorer=None,
            folder=ctx.folder,
            name=NAME,
        )
    finally:
        spool.close()
    words = align_report.words(ctx.out / NAME)
    return Result(
        metrics=_metrics(summary, heard, words),
        ledger=(*heard.ledger(ctx), align_report.engine_line(align_torchaudio.MISSING)),
        tables=(*tables(summary, scored=None, name=NAME), words.table()),
        plots=plots(summary),
        timings=sweep.timings(heard, summary),
        notes=_notes(summary, words, wanted),
        failure=sweep.failure(summary, done="aligned", fatal=spec.on_error == "fail"),
    )


def _setup(spec: AsrAlign, ctx: Context, model: Resolved, loading: Fields) -> Setup:
    return Setup(
        source=sweep.source(ctx, model, **loading),
        task=model.family.task,
        precision=spec.precision,
        device=ctx.device,
        threads=ctx.threads,
        timestamps=spec.timestamps,
        silence_db=spec.audio.silence_db,
    )


def _clips(spec: AsrAlign, ctx: Context) -> list[Clip]:
    name = None if is_reference(spec.data.manifest) else spec.data.manifest
    clips = sweep.clips(ctx, name=name, root=spec.data.root)
    if clips and all(clip.text is None for clip in clips):
        raise JobError(
            f"none of the {len(clips)} recordings has a text to align: give data.manifest a text column",
            failure="DataInvalid",
        )
    return clips


def _shape(spec: AsrAlign) -> Shape:
    return Shape(
        channels=spec.audio.channels,
        window_s=spec.window.length_s,
        context_s=spec.window.context_s,
        batch_s=spec.batch.seconds,
        batch_windows=spec.batch.files,
        together=True,
    )


def _metrics(summary: Summary, heard: Sweep, words: Words) -> Fields:
    return {
        **summary.metrics(),
        "words": words.aligned,
        "wildcard_words": words.wildcards,
        "windows": len(heard.plan.order),
    }


def _notes(summary: Summary, words: Words, wanted: Wanted) -> tuple[str, ...]:
    notes = [
        "confidence is the geometric mean of the probabilities of a word's letters: it ranks, it is not calibrated"
    ]
    if summary.failed:
        notes.append(f"{summary.failed} of {summary.files} recordings could not be aligned")
    if wanted.text is not None:
        notes.append(f"words are said as {portuguese.describe(wanted.text)[0]} says them")
    if words.wildcards:
        notes.append(f"{words.wildcards} words were aligned by wildcards alone: their times are of what is said there")
    return tuple(notes)
