"""`asr-finetune`: read both tables, begin with a model or an architecture, train, keep the best, measure it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Literal

from runner.asr import precision, recordings
from runner.asr.normalise import accent_sensitive
from runner.asr.pieces import Source
from runner.asr.precision import Precision
from runner.asr.training import corpus, evaluation, session, spelling, tables
from runner.asr.training.checkpoints import Checkpoints
from runner.asr.training.corpus import Corpus
from runner.asr.training.evaluation import Evaluation, Examiner
from runner.asr.training.loop import Run, Tell
from runner.asr.training.network import RATE, Architecture, Dropouts
from runner.asr.training.progress import BLANKS
from runner.asr.training.recipe import Augmentation, Lora, Masks, Rate, Recipe
from runner.asr.training.session import Learner
from runner.asr.training.spelling import Spelling
from runner.context import Context, LedgerLine, Result
from runner.registry.resolve import resolve
from runner.schema.errors import JobError
from runner.schema.fields import every
from runner.schema.jobs.asr_finetune import AsrFinetune
from runner.schema.marks import RESULT
from runner.schema.reference import is_reference

Fields = dict[str, Any]
BEFORE = "before.json"


def run(spec: AsrFinetune, ctx: Context) -> Result:
    """Train a model as ``spec`` says; see ``runner.asr.training`` for the parts."""
    start, rate, receptive = _start(spec, ctx)
    data = _corpus(spec, ctx, "train", rate=rate, receptive=receptive)
    validation = _corpus(spec, ctx, "validation", rate=rate, receptive=receptive)
    chosen = precision.choose(spec.precision, device=ctx.device)
    checkpoints = Checkpoints(ctx.checkpoints / "training")
    checkpoints.check(_identity(spec, ctx, chosen))
    learner = session.begin(
        start,
        wanted=_wanted(spec, data),
        masks=_masks(spec),
        dropouts=Dropouts(values=spec.train.dropout, layers=spec.train.layerdrop),
        seed=spec.train.seed,
        device=ctx.device,
        threads=ctx.threads,
    )
    examiner = learner.examiner(validation, check=ctx.check)
    before = _before(learner, examiner, checkpoints)
    began = time.perf_counter()
    done = session.train(
        learner,
        data=data,
        examiner=examiner,
        recipe=_recipe(spec, chosen.name),
        lora=_lora(spec),
        freeze=_freezes(spec),
        device=ctx.device,
        threads=ctx.threads,
        checkpoints=checkpoints,
        tell=Tell(progress=ctx.progress, log=ctx.log, metric=ctx.metric, check=ctx.check),
    )
    trained_s = time.perf_counter() - began
    found = examiner.evaluate(learner.model, learner.spelling)
    _write(ctx, learner, validation, found, spec)
    after = tables.summary(found.scores)
    return Result(
        metrics=_metrics(data, validation, learner, done, before=before, after=after),
        intervals=_intervals(before, after),
        ledger=_ledger(spec, chosen),
        tables=(tables.before_after(before, after), *tables.worst(validation, found), tables.curve(done)),
        plots=tables.plots(done.history),
        timings={"training": trained_s},
        notes=_notes(done, learner, data, validation),
    )


def _start(spec: AsrFinetune, ctx: Context) -> tuple[Source | Architecture, int, int]:
    """What training begins with, its sample rate in Hz, and the samples that one frame sees."""
    if spec.architecture is not None:
        made = Architecture(**spec.architecture.model_dump())
        return made, RATE, made.receptive
    assert spec.model is not None, "a spec has a model or an architecture"
    folder = str(ctx.inputs["model"].path.absolute())
    options = {name: getattr(spec.model, name) for name in ("allow_pickle", "trust_remote_code", "adapter")}
    found = resolve(folder, folder=ctx.folder, **options)
    facts = found.facts
    source = Source(
        folder=folder,
        rate=facts["sample_rate"],
        stride=facts["stride_samples"],
        receptive=facts["receptive_samples"],
        waveform=found.family.features == "waveform",
        normalise=facts["do_normalize"],
        mask=facts["mask"],
        **options,
    )
    return source, source.rate, source.receptive


def _corpus(
    spec: AsrFinetune, ctx: Context, field: Literal["train", "validation"], *, rate: int, receptive: int
) -> Corpus:
    value, path = getattr(spec.data, field), ctx.inputs[f"data.{field}"].path
    clips = list(
        recordings.from_manifest(
            path,
            name=None if is_reference(value) else value,
            root=spec.data.root,
            folder=ctx.folder,
            unpacked=ctx.checkpoints / field,
        )
    )
    return corpus.read(
        clips,
        corpus.columns(path, rows=len(clips)),
        field=f"data.{field}",
        normalise=accent_sensitive,
        channels=spec.audio.channels,
        rate=rate,
        receptive=receptive,
        threads=4 * ctx.threads,
    )


def _identity(spec: AsrFinetune, ctx: Context, chosen: Precision) -> Fields:
    """All that decides the weights, by field: checkpoints of anything else are refused."""
    dump = spec.model_dump(mode="json")
    found: Fields = {name: given.digest for name, given in ctx.inputs.items()}
    for path, view in every(type(spec)):
        if view.mark is RESULT:
            value: Any = dump
            for part in path:
                value = value.get(part) if value is not None else None
            found[".".join(path)] = value
    return {**found, "precision": chosen.name, "device": ctx.device, "code": spec.code_version}


def _wanted(spec: AsrFinetune, data: Corpus) -> Callable[[Spelling | None], Spelling]:
    def wanted(was: Spelling | None) -> Spelling:
        source = spec.vocabulary.source or ("build" if spec.model is None else "keep")
        if source == "build":
            return spelling.built((one.text for one in data.utterances), why="the texts of data.train")
        if source == "given":
            return spelling.built([spec.vocabulary.characters or ""], why="vocabulary.characters")
        if was is None:
            raise JobError(
                "the model has no trained head, so no vocabulary to keep: set vocabulary.source to build or given",
                failure="ModelInvalid",
            )
        return was

    return wanted


def _masks(spec: AsrFinetune) -> Masks:
    wanted = spec.augment
    return Masks(
        time=wanted.time_masks,
        time_frames=wanted.time_mask_frames,
        feature=wanted.feature_masks,
        feature_width=wanted.feature_mask_width,
    )


def _lora(spec: AsrFinetune) -> Lora | None:
    wanted = spec.adapter
    return None if wanted is None else Lora(r=wanted.r, alpha=wanted.alpha, dropout=wanted.dropout)


def _freezes(spec: AsrFinetune) -> bool:
    wanted = spec.train.freeze_feature_encoder
    return spec.model is not None if wanted is None else wanted


def _recipe(spec: AsrFinetune, chosen: Literal["fp32", "bf16", "fp16"]) -> Recipe:
    train, augment = spec.train, spec.augment
    snr = augment.noise_snr_db
    return Recipe(
        epochs=train.epochs,
        steps=train.steps,
        rate=Rate(
            highest=train.learning_rate,
            warmup=train.warmup,
            hold=train.hold,
            decay=train.decay,
            floor=train.floor,
        ),
        weight_decay=train.weight_decay,
        betas=(train.betas[0], train.betas[1]),
        clip_norm=train.clip_norm,
        accumulate=train.accumulate,
        seconds=spec.batch.seconds,
        clips=spec.batch.clips,
        shortest_first=train.shortest_first,
        augmentation=Augmentation(
            noise_snr_db=None if snr is None else (snr[0], snr[1]),
            speed=augment.speed,
            pause_s=augment.pause_s,
            join=augment.join,
            silence=augment.silence,
        ),
        checkpointing=train.checkpointing,
        precision=chosen,
        every_steps=spec.evaluation.every_steps,
        patience=spec.evaluation.patience,
        seed=train.seed,
    )


def _before(learner: Learner, examiner: Examiner, checkpoints: Checkpoints) -> Fields | None:
    """What the base makes of the validation data, where it writes the same characters; measured once."""
    if not learner.comparable:
        return None
    found: Fields | None = checkpoints.noted(BEFORE)
    if found is None:
        found = tables.summary(examiner.evaluate(learner.model, learner.spelling).scores)
        checkpoints.note(BEFORE, found)
    return found


def _write(ctx: Context, learner: Learner, validation: Corpus, found: Evaluation, spec: AsrFinetune) -> None:
    session.save(learner, ctx.out / "model", masks=_masks(spec))
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in evaluation.rows(validation, found))
    (ctx.out / "eval.jsonl").write_text("".join(lines), encoding="utf-8")


def _metrics(
    data: Corpus, validation: Corpus, learner: Learner, done: Run, *, before: Fields | None, after: Fields
) -> Fields:
    parameters = list(learner.model.parameters())
    return {
        **after["metrics"],
        **({f"{name}_before": before["metrics"][name] for name in ("wer", "cer")} if before else {}),
        "steps": done.steps,
        "best_step": done.best,
        "measurements": len(done.history),
        "clips_train": len(data),
        "clips_validation": len(validation),
        "audio_train_s": round(data.seconds, 3),
        "audio_validation_s": round(validation.seconds, 3),
        "parameters": sum(one.numel() for one in parameters),
        "vocabulary": len(learner.spelling.alphabet.texts),
    }


def _intervals(before: Fields | None, after: Fields) -> dict[str, tuple[float, float]]:
    found = {name: (low, high) for name, (low, high) in after["intervals"].items()}
    if before is not None:
        found |= {f"{name}_before": tuple(before["intervals"][name]) for name in ("wer", "cer") if name in found}
    return found


def _ledger(spec: AsrFinetune, chosen: Precision) -> tuple[LedgerLine, ...]:
    why = f"{chosen.name}: {chosen.why}; weights and measurements in fp32"
    lines = [LedgerLine(what="precision", where="training", applied=chosen.name != "fp32", why=why)]
    if _freezes(spec):
        lines.append(LedgerLine(what="freeze", where="feature encoder", applied=True, why="as the spec says"))
    if spec.adapter is not None:
        why = f"rank {spec.adapter.r} beside the encoder's linear layers; merged into the weights"
        lines.append(LedgerLine(what="lora", where="encoder", wanted="required", applied=True, why=why))
    if spec.train.checkpointing:
        why = "activations are computed again instead of kept"
        lines.append(LedgerLine(what="checkpointing", where="encoder", wanted="required", applied=True, why=why))
    return tuple(lines)


def _notes(done: Run, learner: Learner, data: Corpus, validation: Corpus) -> tuple[str, ...]:
    notes = [
        f"the model is the best of {len(done.history)} measurements on these validation clips, that of step "
        f"{done.best}: on others expect a little more errors"
    ]
    if done.stopped_early:
        notes.append(f"stopped after {done.steps} of {done.planned} steps: no measurement was better for a while")
    if done.history[-1]["blank_ratio"] >= BLANKS:
        notes.append("the model writes nothing yet: it needs more steps, or a higher learning rate")
    unknown = learner.spelling.unknown(one.text for one in (*data.utterances, *validation.utterances))
    if unknown:
        shown = ", ".join(f"{character!r} ({count})" for character, count in unknown.most_common(10))
        notes.append(f"{len(unknown)} characters of the texts are not in the vocabulary and are not trained: {shown}")
    return tuple(notes)
