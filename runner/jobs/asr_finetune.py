"""`asr-finetune`: read both tables, begin with a model or an architecture, train, keep the best, measure it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from runner import precision, ranks
from runner.asr import lint, portuguese, recordings, sweep
from runner.asr.findings import Report
from runner.asr.pieces import Source
from runner.asr.training import corpus, evaluation, outcome, session, spelling
from runner.asr.training.corpus import Corpus
from runner.asr.training.evaluation import Examiner, Judged
from runner.asr.training.network import RATE, Architecture, Dropouts
from runner.asr.training.recipe import Augmentation, Lora, Masks, Rate, Recipe
from runner.asr.training.session import Learner
from runner.asr.training.spelling import Spelling
from runner.checkpoints import Checkpoints
from runner.context import Context, Result
from runner.precision import Precision
from runner.schema.errors import JobError
from runner.schema.fields import every
from runner.schema.jobs.asr_finetune import AsrFinetune
from runner.schema.marks import RESULT
from runner.schema.reference import is_reference
from runner.tell import Tell

Fields = dict[str, Any]
BEFORE = "before.json"


def run(spec: AsrFinetune, ctx: Context) -> Result:
    """Train a model as ``spec`` says; see ``runner.asr.training`` for the parts."""
    result: Result = ctx.team.run(partial(_train, spec), ctx)
    return result


def _train(spec: AsrFinetune, ctx: Context) -> Result:
    """What each process of the team does. The first one reads, lints and writes for all."""
    start, rate, receptive = _start(spec, ctx)
    settings = portuguese.Settings(**spec.text.model_dump())
    data, validation = ranks.from_first(
        lambda: [
            _corpus(spec, ctx, field, settings, rate=rate, receptive=receptive) for field in ("train", "validation")
        ]
    )
    chosen = precision.choose(spec.precision, device=ctx.device)
    checkpoints = Checkpoints(ctx.checkpoints / "training")
    ranks.from_first(lambda: checkpoints.check(_identity(spec, ctx, chosen)))
    learner = _learner(spec, ctx, start, data)
    report = ranks.from_first(lambda: _lint(spec, ctx, learner, data, validation))
    data, validation = data.without(report.unusable["train"]), validation.without(report.unusable["validation"])
    examiner = learner.examiner(validation, check=ctx.check)
    before = _before(learner, examiner, validation, checkpoints)
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
    after = examiner.evaluate(learner.model, learner.spelling).judged
    if ranks.rank() == 0:
        session.save(learner, ctx.out / "model", masks=_masks(spec))
        _write(ctx, validation, after)
    return Result(
        metrics={
            **outcome.counts(data, validation, learner, done),
            **outcome.rates(before, after),
            "text": portuguese.describe(settings),
        },
        intervals=outcome.intervals(before, after),
        ledger=outcome.ledger(
            learner, chosen, done, freeze=_freezes(spec), lora=_lora(spec), checkpointing=spec.train.checkpointing
        ),
        tables=(*outcome.tables(validation, done, before=before, after=after), report.table()),
        plots=(*outcome.plots(done.history), *report.plots()),
        timings={"training": trained_s},
        notes=outcome.notes(learner, done),
    )


def _start(spec: AsrFinetune, ctx: Context) -> tuple[Source | Architecture, int, int]:
    """What training begins with, its sample rate in Hz, and the samples that one frame sees."""
    if spec.model is None:
        made = Architecture(**spec.architecture.model_dump(exclude={"type"}))
        return made, RATE, made.receptive
    loading = spec.model.model_dump(include={"adapter", "allow_pickle", "trust_remote_code"})
    model = sweep.model(ctx, **loading)
    if reason := spec.unfit(model.facts):  # known to the plan, but for a model that was not made yet
        raise JobError(reason, failure="ModelInvalid")
    source = sweep.source(ctx, model, **loading)
    return source, source.rate, source.receptive


def _corpus(
    spec: AsrFinetune, ctx: Context, field: str, settings: portuguese.Settings, *, rate: int, receptive: int
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
        normalise=portuguese.normaliser(settings),
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


def _learner(spec: AsrFinetune, ctx: Context, start: Source | Architecture, data: Corpus) -> Learner:
    return session.begin(
        start,
        wanted=_wanted(spec, data),
        masks=_masks(spec),
        dropouts=Dropouts(values=spec.train.dropout, layers=spec.train.layerdrop),
        seed=spec.train.seed,
        device=ctx.device,
        threads=ctx.threads,
    )


def _wanted(spec: AsrFinetune, data: Corpus) -> Callable[[Spelling | None], Spelling]:
    def wanted(was: Spelling | None) -> Spelling:
        source = spec.vocabulary.source or ("build" if spec.model is None else "keep")
        if source == "build":
            return spelling.built((one.text for one in data.utterances), why="the texts of data.train")
        if source == "given":
            return spelling.built([spec.vocabulary.characters or ""], why="vocabulary.characters")
        if was is None:
            raise JobError(
                "the model has no trained head with a vocabulary to keep: set vocabulary.source to build or given",
                failure="ModelInvalid",
            )
        return was

    return wanted


def _lint(spec: AsrFinetune, ctx: Context, learner: Learner, data: Corpus, validation: Corpus) -> Report:
    """Listen to everything once; what would not train well stops the job here, with a table and `lint.json`."""

    def progress(done: int, total: int) -> None:
        ctx.progress(done, total, "recordings looked at")
        ctx.check()

    report = lint.check(
        train=data.utterances,
        validation=validation.utterances,
        spelling=learner.spelling,
        frames=learner.frames,
        rate=data.rate,
        threads=ctx.threads,
        allow=spec.lint.allow,
        progress=progress,
    )
    (ctx.out / "lint.json").write_text(report.to_json(), encoding="utf-8")
    ctx.log(str(report))
    message = report.failure()
    if message is not None:
        raise JobError(f"{message}; mend the data, or name what may stay in lint.allow", failure="DataInvalid")
    for field, table in (("train", data), ("validation", validation)):
        if len(report.unusable[field]) == len(table):
            raise JobError(f"data.{field}: none of the {len(table)} recordings can be used", failure="DataInvalid")
    return report


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
    return None if wanted.type == "none" else Lora(r=wanted.r, alpha=wanted.alpha, dropout=wanted.dropout)


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


def _before(learner: Learner, examiner: Examiner, validation: Corpus, checkpoints: Checkpoints) -> Judged | None:
    """What the base makes of the validation data, where it writes the same characters; heard once."""
    if not learner.comparable:
        return None
    texts = ranks.from_first(lambda: checkpoints.noted(BEFORE))
    if texts is None:
        texts = examiner.evaluate(learner.model, learner.spelling).hypotheses
        if ranks.rank() == 0:
            checkpoints.note(BEFORE, texts)
    return evaluation.judge(validation, texts)


def _write(ctx: Context, validation: Corpus, after: Judged) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in evaluation.rows(validation, after))
    (ctx.out / "eval.jsonl").write_text("".join(lines), encoding="utf-8")
