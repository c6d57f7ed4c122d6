"""`asr-transcribe`: list recordings, read their headers, plan batches, transcribe, write results in input order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from runner.asr import batches, sweep, writer
from runner.asr.collector import Collector
from runner.asr.pieces import Setup
from runner.asr.recordings import Clip
from runner.asr.score import Scorer, Scores
from runner.asr.streaming.live import Live
from runner.asr.streaming.settings import settings
from runner.asr.sweep import Shape, Sweep
from runner.asr.tables import plots, tables
from runner.asr.writer import Summary
from runner.context import Context, Result
from runner.registry.family import Resolved
from runner.schema.errors import JobError
from runner.schema.jobs.asr_transcribe import AsrTranscribe
from runner.schema.reference import is_reference

Fields = dict[str, Any]
WHISPER_S = 30.0  # that one window may last; the model computes as much for a shorter one


def run(spec: AsrTranscribe, ctx: Context) -> Result:
    """Transcribe every recording of ``spec``; see ``runner.asr`` for the parts."""
    loading = spec.model.model_dump(include={"adapter", "allow_pickle", "trust_remote_code"})
    model = sweep.model(ctx, **loading)
    _check_decode(spec, model)
    setup = _setup(spec, ctx, model, loading)
    clips = _clips(spec, ctx)
    _check_texts(spec, clips)
    live = _live(spec, setup, model)
    heard = live.prepare(ctx, clips) if live else _prepare(spec, ctx, setup, clips, model)
    spool = heard.spool(ctx)
    try:
        if live:
            live.hear(ctx, heard, spool)
        else:
            sweep.hear(ctx, heard, spool, Collector(spool, heard.layout, heard.found, setup))
        scorer = Scorer() if any(clip.text is not None for clip in clips) else None
        summary = writer.write(
            spool,
            heard.found,
            out=ctx.out,
            records=ctx.records,
            formats=spec.outputs,
            rate=setup.source.rate,
            scorer=scorer,
            shown=lambda recording: os.path.relpath(recording.clip.path, ctx.folder),
        )
    finally:
        spool.close()
    scores = scorer.result() if scorer else None
    result = Result(
        metrics=_metrics(summary, heard.plan, scores),
        intervals=scores.intervals() if scores else {},
        ledger=heard.ledger(ctx),
        tables=tables(summary, scored=scores),
        plots=plots(summary),
        timings=sweep.timings(heard, summary),
        notes=_notes(summary),
        failure=sweep.failure(summary, done="transcribed", fatal=spec.on_error == "fail"),
    )
    return live.report(ctx, heard, clips, result) if live else result


def _setup(spec: AsrTranscribe, ctx: Context, model: Resolved, loading: Fields) -> Setup:
    return Setup(
        source=sweep.source(ctx, model, **loading),
        task=model.family.task,
        precision=spec.precision,
        device=ctx.device,
        threads=ctx.threads,
        beam_size=spec.decode.beam_size,
        timestamps=spec.decode.timestamps,
        silence_db=spec.audio.silence_db,
        language=spec.decode.language,
    )


def _check_decode(spec: AsrTranscribe, model: Resolved) -> None:
    """What the model's family cannot do is said before the work, not left out of the result."""
    decode, family = spec.decode, model.family
    if family.task == "ctc" and decode.language is not None:
        raise JobError(
            f"decode.language is {decode.language!r}, but a {family.name} model is not told a language: "
            "remove it (a language of MMS is chosen with model.adapter)",
            failure="ModelInvalid",
        )
    if family.task == "seq2seq" and decode.timestamps == "char":
        raise JobError(
            f"decode.timestamps is 'char', but {family.name} spells in pieces: take word or none",
            failure="ModelInvalid",
        )


def _clips(spec: AsrTranscribe, ctx: Context) -> list[Clip]:
    manifest = spec.data.manifest
    name = None if manifest is None or is_reference(manifest) else manifest
    return sweep.clips(ctx, name=name, root=spec.data.root)


def _check_texts(spec: AsrTranscribe, clips: Sequence[Clip]) -> None:
    """Gates on error rates need texts: say so before the work, not after it."""
    names = [name for name in ("max_wer", "max_cer") if getattr(spec.gates, name) is not None]
    if names and not any(clip.text for clip in clips):
        raise JobError(
            f"gates.{names[0]} is set, but none of the {len(clips)} recordings has a text to compare with: "
            "give data.manifest with a text column, or remove the gate",
            failure="DataInvalid",
        )


def _shape(spec: AsrTranscribe, setup: Setup) -> Shape:
    whisper = setup.task == "seq2seq"
    if whisper and spec.window.length_s > WHISPER_S:
        raise JobError(
            f"window.length_s is {spec.window.length_s:g}, but whisper hears at most {WHISPER_S:g} s at once",
            failure="ModelInvalid",
        )
    return Shape(
        channels=spec.audio.channels,
        window_s=spec.window.length_s,
        context_s=spec.window.context_s,
        batch_s=spec.batch.seconds,
        batch_windows=spec.batch.files,
        least_s=WHISPER_S if whisper else 0.0,
    )


def _prepare(spec: AsrTranscribe, ctx: Context, setup: Setup, clips: list[Clip], model: Resolved) -> Sweep:
    return sweep.prepare(ctx, setup, clips, shape=_shape(spec, setup), model_type=model.model_type)


def _live(spec: AsrTranscribe, setup: Setup, model: Resolved) -> Live | None:
    """How recordings are streamed; None where they are transcribed at leisure."""
    if spec.streaming is None:
        return None
    if setup.task != "ctc":
        raise JobError(
            f"streaming needs a CTC model, and {model.family.name} hears whole sentences: remove streaming",
            failure="ModelInvalid",
        )
    asked, source = spec.streaming, setup.source
    given = asked.model_dump(exclude={"endpoint", "compare"}) | asked.endpoint.model_dump()
    how = settings(**given, rate=source.rate, stride=source.stride, receptive=source.receptive)
    shape = _shape(spec, setup)
    return Live(settings=how, setup=setup, shape=shape, model_type=model.model_type, compare=asked.compare)


def _metrics(summary: Summary, plan: batches.Plan, scores: Scores | None) -> Fields:
    files = summary.files
    return {
        **(scores.metrics() if scores else {}),
        "files": files,
        "ok": summary.statuses["ok"],
        "empty": summary.statuses["empty"],
        "failed": summary.failed,
        "failed_share": summary.failed / files,
        "errors": dict(sorted(summary.classes.items())),
        "audio_s": round(summary.audio_s, 3),
        "words": summary.words,
        "windows": len(plan.order),
        "confidence": None if summary.confidence is None else round(summary.confidence, 4),
    }


def _notes(summary: Summary) -> tuple[str, ...]:
    notes = []
    if summary.failed:
        notes.append(f"{summary.failed} of {summary.files} recordings have no transcript and are in no error rate")
    if summary.confidence is not None:
        notes.append("confidence is not calibrated: it ranks words and recordings, it is no probability")
    return tuple(notes)
