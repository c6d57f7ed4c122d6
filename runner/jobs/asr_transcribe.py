"""`asr-transcribe`: list recordings, read their headers, plan batches, transcribe, write results in input order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from runner.asr import calibration, ctc, portuguese, recordings, route, sweep, trust, validation, writer
from runner.asr.alphabet import Alphabet
from runner.asr.collector import Collector
from runner.asr.held import Held
from runner.asr.language import wording
from runner.asr.language.fusion import Wording
from runner.asr.language.wording import Told
from runner.asr.pieces import Setup
from runner.asr.recordings import Clip
from runner.asr.score import Scorer
from runner.asr.spool import Spool
from runner.asr.streaming.live import Live
from runner.asr.streaming.settings import settings
from runner.asr.sweep import Shape, Sweep
from runner.asr.tables import plots, tables
from runner.asr.trust import Judge
from runner.asr.validation import Learned
from runner.asr.writer import Summary
from runner.context import Context, Result
from runner.registry.family import Resolved
from runner.schema.errors import JobError
from runner.schema.jobs.asr_transcribe import AsrTranscribe
from runner.schema.reference import is_reference

Fields = dict[str, Any]
WHISPER_S = 30.0  # that one window may last; the model computes as much for a shorter one
TRAINED, CALIBRATED = "lm.arpa", "calibration.json"  # files of the artifact


def run(spec: AsrTranscribe, ctx: Context) -> Result:
    """Transcribe every recording of ``spec``; see ``runner.asr`` for the parts."""
    loading = spec.model.model_dump(include={"adapter", "allow_pickle", "trust_remote_code"})
    model = sweep.model(ctx, **loading)
    _check_decode(spec, model)
    setup = _setup(spec, ctx, model, loading)
    clips = _clips(spec, ctx)
    _check_texts(spec, clips)
    alphabet = _alphabet(setup, model)
    told = _told(spec, ctx, clips, alphabet)
    learned = _learned(spec, ctx, replace(setup, wording=told.wording if told else None), model, alphabet)
    setup = learned.setup
    live = _live(spec, setup, model)
    heard = live.prepare(ctx, clips) if live else _prepare(spec, ctx, setup, clips, model)
    spool = heard.spool(ctx)
    try:
        _hear(ctx, heard, spool, live)
        referred = any(clip.text is not None for clip in clips)
        scorer, judge = (Scorer(), Judge()) if referred else (None, None)
        summary = writer.write(
            spool,
            heard.found,
            out=ctx.out,
            records=ctx.records,
            formats=spec.outputs,
            rate=setup.source.rate,
            scorer=scorer,
            judge=judge,
            folder=ctx.folder,
        )
        below = spec.route.below
        routed = None if below is None else route.write(ctx.out / route.NAME, spool, heard.found, below=below)
    finally:
        spool.close()
    held = Held(
        scores=scorer.result() if scorer else None, trust=trust.trust(judge.result()) if judge else None, routed=routed
    )
    result = Result(
        metrics=_metrics(spec, summary, heard, held) | learned.metrics | (told.metrics if told else {}),
        intervals=held.scores.intervals() if held.scores else {},
        ledger=heard.ledger(ctx),
        tables=(*tables(summary, scored=held.scores), *held.tables(told.tables if told else (), learned.tables)),
        plots=(*plots(summary), *held.plots()),
        timings=sweep.timings(heard, summary),
        notes=_notes(spec, summary, clips, learned),
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
    told = [name for name in ("lm", "hotwords", "hotwords_file") if getattr(decode, name)]
    told += ["text"] if spec.data.text else []
    if family.task == "seq2seq" and told:
        raise JobError(
            f"decoding is told of the language ({', '.join(told)}), but {family.name} has a language model of its own: "
            "remove it, or take a CTC model",
            failure="ModelInvalid",
        )


def _alphabet(setup: Setup, model: Resolved) -> Alphabet | None:
    """Of a CTC model."""
    if setup.task != "ctc":
        return None
    return ctc.load_alphabet(setup, vocab=model.facts["vocab_size"], blank=model.facts["blank_id"])


def _told(spec: AsrTranscribe, ctx: Context, clips: Sequence[Clip], alphabet: Alphabet | None) -> Told | None:
    """The language model, trained where a text is given, and the hotwords; None where there are neither."""
    decode = spec.decode
    given = {
        name: ctx.inputs[name].path for name in ("decode.lm", "decode.hotwords_file", "data.text") if name in ctx.inputs
    }
    if alphabet is None or not (given or decode.hotwords):
        return None
    trained = None
    if "data.text" in given:
        ctx.log(f"training a language model on {spec.data.text}")
        given["decode.lm"] = ctx.out / TRAINED
        trained = wording.train_on(
            given["data.text"], order=decode.ngram_order, alphabet=alphabet, to=given["decode.lm"], say=_say(spec)
        )
    lm = given.get("decode.lm")
    told = Wording(
        lm=None if lm is None else str(lm),
        alpha=decode.alpha,
        beta=decode.beta,
        hotwords=wording.hotwords(decode.hotwords, given.get("decode.hotwords_file"), alphabet),
        hotword_weight=decode.hotword_weight,
    )
    return wording.tell(told, alphabet=alphabet, trained=trained, references=[clip.text for clip in clips if clip.text])


def _learned(spec: AsrTranscribe, ctx: Context, setup: Setup, model: Resolved, alphabet: Alphabet | None) -> Learned:
    """``setup`` with what the validation recordings or a calibration file say."""
    given = ctx.inputs.get("confidence.calibration")
    if given is not None:
        made, content = calibration.load(given.path)
        note = calibration.note(content, str(spec.confidence.calibration), here=_made_with(ctx, setup))
        return Learned(setup=replace(setup, calibration=made), notes=(note,))
    if spec.data.validation is None:
        return Learned(setup=setup)
    shape = _shape(spec, setup)
    learned = validation.learn(
        ctx,
        setup,
        _validation_clips(spec, ctx),
        shape=replace(shape, channels="mix") if shape.channels == "each" else shape,  # texts are of whole recordings
        model_type=model.model_type,
        alphabet=alphabet,
        tunes=spec.decode.tune,
        calibrates=spec.confidence.calibrate,
    )
    if learned.fitted is not None:
        content = learned.fitted.to_json(_made_with(ctx, learned.setup))
        (ctx.out / CALIBRATED).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return learned


def _made_with(ctx: Context, setup: Setup) -> Fields:
    """What a calibration belongs to: another model, or other decoding, makes other confidence."""
    told = asdict(setup.wording or Wording())
    if told["lm"] is not None:  # by content: where it was trained it lies elsewhere than in the artifact
        with Path(told["lm"]).open("rb") as file:
            told["lm"] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    decoding = {"beam_size": setup.beam_size, **told, "hotwords": list(told["hotwords"])}  # as JSON has them
    return {"model": ctx.inputs["model"].digest, "decoding": decoding}


def _validation_clips(spec: AsrTranscribe, ctx: Context) -> list[Clip]:
    assert spec.data.validation is not None, "it was asked for"
    name = None if is_reference(spec.data.validation) else spec.data.validation
    path, unpacked = ctx.inputs["data.validation"].path, ctx.checkpoints / "validation" / "recordings"
    clips = recordings.from_manifest(path, name=name, root=spec.data.root, folder=ctx.folder, unpacked=unpacked)
    return recordings.said(clips, _say(spec))


def _clips(spec: AsrTranscribe, ctx: Context) -> list[Clip]:
    manifest = spec.data.manifest
    name = None if manifest is None or is_reference(manifest) else manifest
    return recordings.said(sweep.clips(ctx, name=name, root=spec.data.root), _say(spec))


def _text(spec: AsrTranscribe) -> portuguese.Settings | None:
    """How the texts of the data are written; None where they stay as they are."""
    return None if spec.text is None else portuguese.Settings(**spec.text.model_dump())


def _say(spec: AsrTranscribe) -> Callable[[str], str] | None:
    text = _text(spec)
    return None if text is None else portuguese.normaliser(text)


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


def _hear(ctx: Context, heard: Sweep, spool: Spool, live: Live | None) -> None:
    if live:
        live.hear(ctx, heard, spool)
    else:
        sweep.hear(ctx, heard, spool, Collector(spool, heard.layout, heard.found, heard.setup))


def _metrics(spec: AsrTranscribe, summary: Summary, heard: Sweep, held: Held) -> Fields:
    metrics = {**held.metrics(), **summary.metrics(), "words": summary.words, "windows": len(heard.plan.order)}
    text = _text(spec)
    return metrics if text is None else {**metrics, "text": portuguese.describe(text)}  # as asr-finetune says it


def _notes(spec: AsrTranscribe, summary: Summary, clips: Sequence[Clip], learned: Learned) -> tuple[str, ...]:
    notes = [*learned.notes]
    if summary.failed:
        notes.append(f"{summary.failed} of {summary.files} recordings have no transcript and are in no error rate")
    if summary.confidence is not None and learned.setup.calibration is None:
        notes.append("confidence is not calibrated: it ranks words and recordings, it is no probability")
        if spec.route.below is not None:
            notes.append(route.uncalibrated(spec.route.below))
    both = learned.recordings & {(clip.path, clip.start, clip.end) for clip in clips}
    if both:
        notes.append(f"{len(both)} recordings are validation recordings too: error rates and calibration are flattered")
    return tuple(notes)
