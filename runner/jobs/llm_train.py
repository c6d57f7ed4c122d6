"""`llm-train`: read and encode the corpora, begin with a model or an architecture, train, measure, keep."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from runner import precision, ranks
from runner.checkpoints import Checkpoints
from runner.context import Context, Given, Result
from runner.llm import lessons, outcome, texts
from runner.llm.data.corpora import Source
from runner.llm.data.skipped import Skipped
from runner.llm.distribution import strategy
from runner.llm.lessons import Lessons
from runner.llm.model import architecture, begin, keep
from runner.llm.model import vocabulary as entries
from runner.llm.model.prepared import Adapter, Base, Prepared
from runner.llm.packing.loader import Loader
from runner.llm.packing.stream import StreamSteps
from runner.llm.text import template, vocabulary
from runner.llm.text.preview import Preview
from runner.llm.text.template import Template
from runner.llm.text.tokens import Encoder
from runner.llm.texts import Texts
from runner.llm.training import journal, samples, session
from runner.llm.training.evaluate import Examiner
from runner.llm.training.recipe import Rate, Recipe
from runner.llm.training.session import Done
from runner.precision import Precision
from runner.registry.family import Resolved
from runner.registry.resolve import resolve
from runner.registry.strategy import stage_of
from runner.schema.errors import JobError
from runner.schema.jobs.llm_train import LlmTrain
from runner.schema.reference import is_reference
from runner.tell import Tell

RATES = {"adapter": 2e-4, "model": 2e-5, "architecture": 1e-3}  # what trains well, by what is trained
GB = 10**9


def run(spec: LlmTrain, ctx: Context) -> Result:
    """Train a model as ``spec`` says; see ``runner.llm`` for the parts."""
    result: Result = ctx.team.run(partial(_train, spec), ctx)
    return result


def preview(spec: LlmTrain, inputs: Mapping[str, Given], *, folder: Path, samples: int) -> Preview:
    """The first ``samples`` documents of each corpus as tokens, with what is learned of them."""
    train, held = _sources(spec, inputs, folder)
    model = None if spec.model is None else _given(spec, inputs, folder)
    if model is None:
        tokenizer = _learned(spec, train)
        entries.extend(tokenizer, spec.tokens.add)
    else:
        tokenizer, _ = entries.open(_folder(model), add=spec.tokens.add, trust_remote_code=_trusts(spec))
    chat = _template(spec, inputs, tokenizer, model)
    encoder = Encoder(tokenizer, chat, loss_on=_loss_on(spec))
    return Preview(
        name=spec.name,
        loss_on=_loss_on(spec),
        template=None if chat is None else chat.why,
        seq_len=spec.batch.seq_len,
        corpora=texts.shown(train | held, encoder, tokenizer, most=samples),
    )


def _train(spec: LlmTrain, ctx: Context) -> Result:
    """What each process of the team does. The first one reads and encodes for all."""
    began = time.perf_counter()
    chosen = precision.choose(spec.precision, device=ctx.device)
    model = ranks.from_first(lambda: _model(spec, ctx))
    tokenizer, added = entries.open(_folder(model), add=spec.tokens.add, trust_remote_code=_trusts(spec))
    chat = _template(spec, ctx.inputs, tokenizer, model)
    if chat is not None:
        ctx.log(chat.why)
        tokenizer.chat_template = chat.text
    learned = _lessons(spec, ctx, tokenizer, chat)
    read_s = time.perf_counter() - began
    prepared = _prepared(spec, ctx, model, tokenizer, added=added, chosen=chosen)
    prepared.ends_with(learned.encoder.end())
    trial = _steps(spec, ctx, prepared, learned).trial()
    prepared = begin.probe(prepared, trial, patches=spec.optimize.probe)
    steps = _steps(spec, ctx, prepared, learned)
    shared = strategy.begin(prepared, device=ctx.device, given=_deepspeed(spec, ctx))
    checkpoints = Checkpoints(ctx.checkpoints / "training")
    ranks.from_first(lambda: checkpoints.check(prepared.identity(strategy=shared.identity)))
    began = time.perf_counter()
    done = session.train(
        prepared,
        steps,
        recipe=_recipe(spec, chosen),
        checkpoints=checkpoints,
        tell=Tell(progress=ctx.progress, log=ctx.log, metric=ctx.metric, check=ctx.check),
        device=ctx.device,
        examiner=_examiner(spec, ctx, prepared, learned),
        strategy=shared,
        track=tuple(spec.track),
        track_folder=ctx.records / "curves",
    )
    trained_s = time.perf_counter() - began
    if ranks.rank() == 0:
        _keep(ctx, prepared, checkpoints, learned.skipped, done)
    return outcome.result(
        prepared=prepared,
        done=done,
        rows=list(journal.rows(checkpoints.folder / journal.TRAINING)),
        cut=steps.cut,
        learned=learned,
        lines=shared.lines,
        said=[*([] if chat is None else [chat.why]), *learned.said(steps)],
        timings={"reading": read_s, "training": trained_s},
    )


def _model(spec: LlmTrain, ctx: Context) -> Resolved:
    """What training begins with; an architecture is made first, with a tokenizer of the training texts."""
    if spec.model is not None:
        return _given(spec, ctx.inputs, ctx.folder)
    folder = ctx.checkpoints / "start"
    if not folder.exists():
        learned = _learned(spec, _sources(spec, ctx.inputs, ctx.folder)[0])
        architecture.make(folder, **spec.architecture.model_dump(), tokenizer=learned, seed=spec.train.seed)
        ctx.log(f"a tokenizer of {len(learned):,} entries was learned from data.train")
    return resolve(str(folder), folder=ctx.folder)


def _learned(spec: LlmTrain, sources: Mapping[str, Source]) -> Any:
    """A tokenizer of the training texts."""
    return vocabulary.learn(vocabulary.texts(texts.samples(sources.values())), size=spec.architecture.vocabulary)


def _given(spec: LlmTrain, inputs: Mapping[str, Given], folder: Path) -> Resolved:
    assert spec.model is not None, "an architecture is made"
    loading = spec.model.model_dump(include={"adapter", "allow_pickle", "trust_remote_code"})
    found = resolve(str(inputs["model"].path.absolute()), folder=folder, **loading)
    if reason := spec.unfit(found.facts):  # known to the plan, but for a model that was not made yet
        raise JobError(reason, failure="ModelInvalid")
    return found


def _folder(model: Resolved) -> Path:
    assert model.path is not None, "a model that is fetched lies in a folder"
    return Path(model.path)


def _trusts(spec: LlmTrain) -> bool:
    return spec.model is not None and spec.model.trust_remote_code


def _template(spec: LlmTrain, inputs: Mapping[str, Given], tokenizer: Any, model: Resolved | None) -> Template | None:
    given = None if spec.data.template is None else template.read(inputs["data.template"].path)
    family, folder = (spec.architecture.type, None) if model is None else (model.family.name, _folder(model))
    return template.choose(tokenizer, given=given, family=family, model=folder)


def _sources(spec: LlmTrain, inputs: Mapping[str, Given], folder: Path) -> tuple[dict[str, Source], dict[str, Source]]:
    """Where the corpora of `data.train` and of `data.validation` lie and how they are read, by field."""
    train = [one.model_dump(exclude={"revision"}) for one in spec.data.train]
    held = [kept.model_dump(exclude={"revision"}) for kept in spec.data.validation]
    return _placed(train, "data.train", inputs, folder), _placed(held, "data.validation", inputs, folder)


def _placed(reading: list[dict[str, Any]], field: str, inputs: Mapping[str, Given], folder: Path) -> dict[str, Source]:
    found = {}
    for number, one in enumerate(reading):
        given = inputs[f"{field}[{number}].source"]
        files = tuple(folder / file for file in given.files) or (given.path,)
        found[f"{field}[{number}]"] = Source(name=one.pop("source"), files=files, folder=folder, **one)
    return found


def _lessons(spec: LlmTrain, ctx: Context, tokenizer: Any, chat: Template | None) -> Lessons:
    reading = Texts(
        encoder=Encoder(tokenizer, chat, loss_on=_loss_on(spec)),
        skipped=Skipped(spec.data.on_error),
        folder=ctx.checkpoints / "corpora",
        say=ctx.log,
        check=ctx.check,
    )
    return lessons.read(
        reading,
        *_sources(spec, ctx.inputs, ctx.folder),
        streaming=spec.data.streaming,
        share=spec.data.validation_share,
        seed=spec.train.seed,
        block=spec.packing.look_ahead,
    )


def _loss_on(spec: LlmTrain) -> Literal["responses", "all"]:
    return spec.data.loss_on or ("responses" if spec.method == "sft" else "all")


def _prepared(
    spec: LlmTrain, ctx: Context, model: Resolved, tokenizer: Any, *, added: tuple[str, ...], chosen: Precision
) -> Prepared:
    wanted, memory_gb = spec.optimize, spec.compute.memory_gb
    given_stage = _deepspeed(spec, ctx)
    return begin.prepare(
        _folder(model),
        facts=model.facts,
        family=model.family,
        tokenizer=tokenizer,
        added=added,
        multiple=spec.tokens.multiple,
        precision=chosen,
        quantize=spec.quantize,
        adapter=_adapter(spec),
        optimize=wanted.model_dump(include={"attention", "kernels", "loss_chunking", "quantised_lora"}),
        **wanted.model_dump(include={"checkpointing", "offload"}),
        **spec.batch.model_dump(include={"seq_len", "rows"}),
        packing=spec.packing.mode,
        optimizer=spec.train.optimizer,
        strategy=spec.distribution.strategy,
        offload_state=spec.distribution.offload,
        stage=None if given_stage is None else stage_of(given_stage),
        device=ctx.device,
        seed=spec.train.seed,
        memory_bytes=None if memory_gb is None else int(memory_gb * GB),
        base=_base(spec, ctx.inputs.get("model")),
        trust_remote_code=_trusts(spec),
        say=ctx.log,
    )


def _base(spec: LlmTrain, given: Given | None) -> Base | None:
    """What an adapter says that it is beside: no version of this store, which the fingerprint does not know."""
    if spec.model is None or given is None:
        return None
    return Base(ref=spec.model.id if is_reference(spec.model.id) else given.ref, digest=given.digest)


def _adapter(spec: LlmTrain) -> Adapter | None:
    wanted = spec.adapter
    if wanted.type == "none":
        return None
    sizes = wanted.model_dump(include={"type", "r", "alpha", "dropout"})
    return Adapter(**sizes, target_modules=tuple(wanted.target_modules), modules_to_save=tuple(wanted.modules_to_save))


def _steps(spec: LlmTrain, ctx: Context, prepared: Prepared, learned: Lessons) -> Loader | StreamSteps:
    return learned.steps(
        prepared.layout(**spec.batch.model_dump(), long=spec.packing.long),
        look_ahead=spec.packing.look_ahead,
        **spec.train.model_dump(include={"seed", "epochs", "max_steps"}),
        journal=ctx.checkpoints / "blocks.jsonl",
    )


def _deepspeed(spec: LlmTrain, ctx: Context) -> Path | None:
    return None if spec.distribution.deepspeed is None else ctx.inputs["distribution.deepspeed"].path


def _examiner(spec: LlmTrain, ctx: Context, prepared: Prepared, learned: Lessons) -> Examiner | None:
    """What is measured while it learns: the validation data, and answers."""
    wanted = spec.evaluation
    held = learned.held(prepared.layout(**spec.batch.model_dump(), long=spec.packing.long))
    if held is None and not wanted.prompts:
        return None
    return Examiner(
        held,
        tokenizer=prepared.tokenizer,
        prompts=samples.prompts(
            wanted.prompts,
            learned.encoder.ask,
            tokens=wanted.prompt_tokens,
            positions=prepared.facts["max_positions"],
        ),
        tokens=wanted.prompt_tokens,
        check=ctx.check,
    )


def _recipe(spec: LlmTrain, chosen: Precision) -> Recipe:
    train, measured = spec.train, spec.evaluation
    what = "architecture" if spec.model is None else "model" if spec.adapter.type == "none" else "adapter"
    rate = train.learning_rate or RATES[what]
    return Recipe(
        rate=Rate(highest=rate, **train.model_dump(include={"schedule", "warmup", "floor"})),
        accumulate=spec.batch.accumulate,
        betas=(train.betas[0], train.betas[1]),
        precision=chosen.name,
        **train.model_dump(include={"optimizer", "weight_decay", "clip_norm", "neftune_alpha", "seed"}),
        **measured.model_dump(include={"every_steps", "save_every_steps", "patience", "best"}),
    )


def _keep(ctx: Context, prepared: Prepared, checkpoints: Checkpoints, skipped: Skipped, done: Done) -> None:
    keep.save(prepared, ctx.out, done.state)
    shutil.copyfile(checkpoints.folder / journal.TRAINING, ctx.out / journal.TRAINING)
    shutil.copyfile(checkpoints.folder / journal.SPEED, ctx.records / journal.SPEED)
    samples.write(done.history, ctx.out / "samples.jsonl")
    if skipped.total:
        skipped.write(ctx.out / "skipped.jsonl")
