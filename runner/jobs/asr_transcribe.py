"""`asr-transcribe`: list recordings, read their headers, plan batches, transcribe, write results in input order."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.asr import batches, recordings, sizing, windows, writer
from runner.asr.collector import Collector
from runner.asr.layout import Layout
from runner.asr.packed import pads
from runner.asr.pieces import Answer, Setup, Source
from runner.asr.probe import Probe
from runner.asr.recordings import Clip, Recording
from runner.asr.score import Scorer, Scores
from runner.asr.sizing import Sizing
from runner.asr.spool import Spool
from runner.asr.tables import ledger, plots, tables
from runner.asr.transcriber import Transcriber
from runner.asr.writer import Summary
from runner.context import Context, Result
from runner.registry.family import Resolved
from runner.registry.resolve import resolve
from runner.schema.errors import JobError
from runner.schema.jobs.asr_transcribe import AsrTranscribe
from runner.schema.reference import is_reference

Fields = dict[str, Any]
WHISPER_S = 30  # that one window may last; the model computes as much for a shorter one


def run(spec: AsrTranscribe, ctx: Context) -> Result:
    """Transcribe every recording of ``spec``; see ``runner.asr`` for the parts."""
    model = _model(spec, ctx)
    _check_decode(spec, model)
    setup = _setup(spec, ctx, model)
    began = time.perf_counter()
    clips = list(_clips(spec, ctx))
    _check_texts(spec, clips)
    found = _listed(spec, ctx, clips, setup)
    headers_s = time.perf_counter() - began
    layout = Layout(found, _cut(spec, setup))
    size = _sizing(spec, ctx, setup)
    plan = batches.plan(_padded_lengths(layout, setup), _size(spec, size, model, setup))
    spool = Spool(ctx.checkpoints, items=len(found), plan=f"{layout.digest()} on {ctx.device}")
    try:
        _transcribe(spool, ctx, layout=layout, found=found, plan=plan, setup=setup)
        scorer = Scorer() if any(clip.text is not None for clip in clips) else None
        summary = writer.write(
            spool,
            found,
            out=ctx.out,
            records=ctx.records,
            formats=spec.outputs,
            rate=setup.source.rate,
            scorer=scorer,
            folder=ctx.folder,
        )
    finally:
        spool.close()
    scores = scorer.result() if scorer else None
    return Result(
        metrics=_metrics(summary, plan, scores),
        intervals=scores.intervals() if scores else {},
        ledger=ledger(_read(_about_file(ctx)), plan=plan, size=size),
        tables=tables(summary, scored=scores),
        plots=plots(summary),
        timings={"headers": headers_s, **{stage: ms / 1000 for stage, ms in summary.stages.items()}},
        notes=_notes(summary),
        failure=_failure(spec, summary),
    )


def _model(spec: AsrTranscribe, ctx: Context) -> Resolved:
    given = ctx.inputs["model"]
    return resolve(
        str(given.path.absolute()),
        folder=ctx.folder,
        allow_pickle=spec.model.allow_pickle,
        trust_remote_code=spec.model.trust_remote_code,
        adapter=spec.model.adapter,
    )


def _setup(spec: AsrTranscribe, ctx: Context, model: Resolved) -> Setup:
    facts = model.facts
    source = Source(
        folder=str(ctx.inputs["model"].path),
        rate=facts["sample_rate"],
        stride=facts["stride_samples"],
        receptive=facts["receptive_samples"],
        waveform=model.family.features == "waveform",
        normalise=facts["do_normalize"],
        mask=facts["mask"],
        adapter=spec.model.adapter,
        allow_pickle=spec.model.allow_pickle,
        trust_remote_code=spec.model.trust_remote_code,
    )
    return Setup(
        source=source,
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


def _clips(spec: AsrTranscribe, ctx: Context) -> Iterator[Clip]:
    if spec.data.manifest is None:
        return recordings.from_files(ctx.inputs["data.audio"].files, folder=ctx.folder)
    name = None if is_reference(spec.data.manifest) else spec.data.manifest
    return recordings.from_manifest(
        ctx.inputs["data.manifest"].path,
        name=name,
        root=spec.data.root,
        folder=ctx.folder,
        unpacked=ctx.checkpoints / "recordings",
    )


def _check_texts(spec: AsrTranscribe, clips: Sequence[Clip]) -> None:
    """Gates on error rates need texts: say so before the work, not after it."""
    names = [name for name in ("max_wer", "max_cer") if getattr(spec.gates, name) is not None]
    if names and not any(clip.text for clip in clips):
        raise JobError(
            f"gates.{names[0]} is set, but none of the {len(clips)} recordings has a text to compare with: "
            "give data.manifest with a text column, or remove the gate",
            failure="DataInvalid",
        )


def _listed(spec: AsrTranscribe, ctx: Context, clips: list[Clip], setup: Setup) -> list[Recording]:
    source = setup.source
    found = recordings.recordings(
        clips, channels=spec.audio.channels, rate=source.rate, receptive=source.receptive, threads=4 * ctx.threads
    )
    listed = []
    for recording in found:
        listed.append(recording)
        if len(listed) % 1000 == 0:
            ctx.check()
    if not listed:
        raise JobError("there are no recordings: the manifest has no rows", failure="DataInvalid")
    return listed


def _cut(spec: AsrTranscribe, setup: Setup) -> windows.Cut:
    source = setup.source
    if setup.task == "seq2seq" and spec.window.length_s > WHISPER_S:
        raise JobError(
            f"window.length_s is {spec.window.length_s:g}, but whisper hears at most {WHISPER_S:g} s at once",
            failure="ModelInvalid",
        )
    return windows.cut(
        length_s=spec.window.length_s,
        context_s=spec.window.context_s,
        rate=source.rate,
        stride=source.stride,
        receptive=source.receptive,
    )


def _padded_lengths(layout: Layout, setup: Setup) -> NDArray[np.int64]:
    """Samples that the model computes for each window: whisper hears 30 s whatever the window holds."""
    return np.full_like(layout.lengths, WHISPER_S * setup.source.rate) if setup.task == "seq2seq" else layout.lengths


def _size(spec: AsrTranscribe, size: Sizing, model: Resolved, setup: Setup) -> batches.Size:
    packed = not pads(model.model_type, device=setup.device)
    return size.size(rate=setup.source.rate, windows=spec.batch.files, packed=packed)


def _sizing(spec: AsrTranscribe, ctx: Context, setup: Setup) -> Sizing:
    """The batch size asked for, or the device's; an earlier attempt's is kept: a resumed job plans the same batches."""
    if spec.batch.seconds is not None:
        return sizing.asked(spec.batch.seconds)
    if setup.device == "cpu":
        return sizing.on_cpu()
    path = ctx.checkpoints / f"sizing-{ctx.device}.json"
    if path.exists():
        return Sizing(**_read(path))
    window_s = WHISPER_S if setup.task == "seq2seq" else spec.window.length_s
    [(_, memory)] = ctx.pool.imap(partial(Probe, setup), [window_s])
    size = sizing.on_gpu(memory)
    _keep(path, vars(size))
    return size


def _transcribe(
    spool: Spool, ctx: Context, *, layout: Layout, found: list[Recording], plan: batches.Plan, setup: Setup
) -> None:
    collector = Collector(spool, layout, found, setup)
    collector.start()
    collector.resume()
    deals = layout.deals(plan, workers=ctx.pool.workers, done=spool.has)
    ctx.progress(collector.done, len(found), "recordings")
    for _, answer in ctx.pool.imap(partial(_transcriber, setup, _about_file(ctx)), deals):
        collector.take(answer)
        _remember(ctx, answer)
        ctx.progress(collector.done, len(found), "recordings")
        ctx.check()


def _transcriber(setup: Setup, about: Path) -> Transcriber:
    """A worker that keeps to the size which earlier ones found to fit into memory, of this attempt or another."""
    return Transcriber(replace(setup, most=_read(about).get("most")))


def _remember(ctx: Context, answer: Answer) -> None:
    """Keep what the workers chose: an attempt that finds all batches done has no worker to ask."""
    about = {**_read(_about_file(ctx)), **answer.about}
    for key in ("halvings", "again"):
        about[key] = int(about.get(key, 0)) + getattr(answer, key)
    if answer.most is not None:
        about["most"] = min(answer.most, about.get("most", answer.most))
    _keep(_about_file(ctx), about)


def _about_file(ctx: Context) -> Path:
    return ctx.checkpoints / f"about-{ctx.device}.json"  # what fits into one device's memory says nothing of another's


def _read(path: Path) -> Fields:
    found: Fields = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _keep(path: Path, fields: Fields) -> None:
    """Replace the file at once: a new worker may be reading it, and a kill must not leave half of it."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(fields), encoding="utf-8")
    fresh.replace(path)


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


def _failure(spec: AsrTranscribe, summary: Summary) -> str | None:
    if not summary.failed:
        return None
    classes = ", ".join(f"{count} {name}" for name, count in summary.classes.most_common(5))
    if summary.failed == summary.files:
        return f"none of the {summary.files} recordings could be transcribed ({classes})"
    if spec.on_error == "fail":
        return f"{summary.failed} of {summary.files} recordings failed ({classes}) and on_error is 'fail'"
    return None
