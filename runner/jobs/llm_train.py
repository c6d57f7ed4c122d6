"""`llm-train`: read and encode the corpora, begin with a model or an architecture, train, measure, keep."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from runner import precision, ranks
from runner.checkpoints import Checkpoints
from runner.context import Context, Given, Result
from runner.llm import corpus, outcome, texts
from runner.llm.corpus import Corpus
from runner.llm.data.corpora import Source
from runner.llm.data.sample import Sample
from runner.llm.data.skipped import Skipped
from runner.llm.distribution import strategy
from runner.llm.distribution.strategy import Strategy
from runner.llm.model import architecture, begin, keep
from runner.llm.model import vocabulary as entries
from runner.llm.model.prepared import Adapter, Base, Prepared
from runner.llm.packing import form
from runner.llm.packing.loader import Loader
from runner.llm.packing.stream import Blocks, StreamSteps
from runner.llm.text import template, vocabulary
from runner.llm.text.preview import Preview
from runner.llm.text.template import Template
from runner.llm.text.tokens import Encoder
from runner.llm.texts import Texts
from runner.llm.training import journal, samples, session
from runner.llm.training.evaluate import Examiner
from runner.llm.training.recipe import Rate, Recipe
from runner.llm.training.samples import Prompt
from runner.llm.training.session import Done
from runner.llm.training.tell import Tell
from runner.precision import Precision
from runner.registry.family import Resolved
from runner.registry.forecast import max_documents
from runner.registry.resolve import resolve
from runner.registry.strategy import Demand, working
from runner.schema.errors import JobError
from runner.schema.jobs.llm_train import LlmTrain

RATES = {"adapter": 2e-4, "model": 2e-5, "architecture": 1e-3}  # what trains well, by what is trained
GB = 10**9


def run(spec: LlmTrain, ctx: Context) -> Result:
    """Train a model as ``spec`` says; see ``runner.llm`` for the parts."""
    result: Result = ctx.team.run(partial(_train, spec), ctx)
    return result


def preview(spec: LlmTrain, inputs: Mapping[str, Given], *, folder: Path, samples: int) -> Preview:
    """The first ``samples`` documents of each corpus as tokens, with what is learned of them."""
    sources = _sources(spec, inputs, folder)
    if spec.model is None:
        tokenizer = vocabulary.learn(vocabulary.texts(_training(sources)), size=spec.architecture.vocabulary)
        chat = _template(spec, inputs, tokenizer, family=spec.architecture.type, model=None)
    else:
        model = _given(spec, inputs, folder)
        tokenizer, _ = entries.open(_folder(model), add=spec.tokens.add, trust_remote_code=_trusts(spec))
        chat = _template(spec, inputs, tokenizer, family=model.family.name, model=_folder(model))
    encoder = Encoder(tokenizer, chat, loss_on=_loss_on(spec))
    return Preview(
        name=spec.name,
        loss_on=_loss_on(spec),
        template=None if chat is None else chat.why,
        seq_len=spec.batch.seq_len,
        corpora=texts.shown(sources, encoder, tokenizer, most=samples),
    )


def _train(spec: LlmTrain, ctx: Context) -> Result:
    """What each process of the team does. The first one reads and encodes for all."""
    began = time.perf_counter()
    chosen = precision.choose(spec.precision, device=ctx.device)
    model = ranks.from_first(lambda: _model(spec, ctx))
    tokenizer, added = entries.open(_folder(model), add=spec.tokens.add, trust_remote_code=_trusts(spec))
    chat = _template(spec, ctx.inputs, tokenizer, family=model.family.name, model=_folder(model))
    if chat is not None:
        ctx.log(chat.why)
        tokenizer.chat_template = chat.text
    lessons = _lessons(spec, ctx, tokenizer, chat)
    read_s = time.perf_counter() - began
    prepared = _prepared(spec, ctx, model, tokenizer, added=added, chosen=chosen)
    if spec.optimize.probe:
        prepared = begin.probe(prepared, _steps(spec, ctx, model, prepared, lessons).trial())
    steps = _steps(spec, ctx, model, prepared, lessons)
    shared = _strategy(spec, ctx, model, prepared)
    checkpoints = Checkpoints(ctx.checkpoints / "training")
    identity = {"precision": chosen.name, "device": ctx.device, "strategy": shared.identity}
    ranks.from_first(lambda: checkpoints.check(identity))
    began = time.perf_counter()
    done = session.train(
        prepared,
        steps,
        recipe=_recipe(spec, chosen),
        checkpoints=checkpoints,
        tell=Tell(progress=ctx.progress, log=ctx.log, metric=ctx.metric, check=ctx.check),
        device=ctx.device,
        examiner=_examiner(spec, ctx, model, prepared, lessons),
        strategy=shared,
        track=tuple(spec.track),
        track_folder=ctx.records / "curves",
    )
    trained_s = time.perf_counter() - began
    if ranks.rank() == 0:
        _keep(ctx, prepared, checkpoints, lessons.skipped, done)
    return outcome.result(
        prepared=prepared,
        done=done,
        rows=list(journal.rows(checkpoints.folder / journal.TRAINING)),
        cut=steps.cut,
        train=lessons.train,
        validation=lessons.validation,
        skipped=lessons.skipped,
        lines=shared.lines,
        said=[] if chat is None else [chat.why],
        timings={"reading": read_s, "training": trained_s},
    )


def _model(spec: LlmTrain, ctx: Context) -> Resolved:
    """What training begins with; an architecture is made first, with a tokenizer of the training texts."""
    if spec.model is not None:
        return _given(spec, ctx.inputs, ctx.folder)
    sizes = spec.architecture.model_dump()
    folder = ctx.checkpoints / "start"
    if not folder.exists():
        training = _training(_sources(spec, ctx.inputs, ctx.folder))
        learned = vocabulary.learn(vocabulary.texts(training), size=spec.architecture.vocabulary)
        architecture.make(folder, **sizes, tokenizer=learned, seed=spec.train.seed)
        ctx.log(f"a tokenizer of {len(learned):,} entries was learned from data.train")
    return resolve(str(folder), folder=ctx.folder)


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


def _template(
    spec: LlmTrain, inputs: Mapping[str, Given], tokenizer: Any, *, family: str, model: Path | None
) -> Template | None:
    given = None if spec.data.template is None else inputs["data.template"].path.read_text(encoding="utf-8")
    return template.choose(tokenizer, given=given, family=family, model=model)


def _sources(spec: LlmTrain, inputs: Mapping[str, Given], folder: Path) -> dict[str, Source]:
    """Where the corpora lie on this machine and how they are read, by field."""
    train = {
        f"data.train[{number}]": one.model_dump(exclude={"revision"}) for number, one in enumerate(spec.data.train)
    }
    validation = {
        f"data.validation[{number}]": held.model_dump(exclude={"revision"})
        for number, held in enumerate(spec.data.validation)
    }
    return {
        field: _source(inputs[f"{field}.source"], folder, **reading) for field, reading in (train | validation).items()
    }


def _source(given: Given, folder: Path, *, source: str, **reading: Any) -> Source:
    files = tuple(folder / file for file in given.files) or (given.path,)
    return Source(name=source, files=files, folder=folder, **reading)


def _training(sources: Mapping[str, Source]) -> Iterator[Sample]:
    return texts.samples(source for field, source in sources.items() if field.startswith("data.train"))


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What is learned and measured on, in every process; a stream is opened by each of them."""

    train: list[Corpus]  # empty where it is streamed
    validation: list[Corpus]
    stream: Blocks | None
    skipped: Skipped
    encoder: Encoder


def _lessons(spec: LlmTrain, ctx: Context, tokenizer: Any, chat: Template | None) -> Lessons:
    sources, skipped = _sources(spec, ctx.inputs, ctx.folder), Skipped(spec.data.on_error)
    reading = Texts(
        encoder=Encoder(tokenizer, chat, loss_on=_loss_on(spec)),
        skipped=skipped,
        folder=ctx.checkpoints / "corpora",
        say=ctx.log,
        check=ctx.check,
    )
    learned = [field for field in sources if field.startswith("data.train")]
    now = [field for field in sources if not (spec.data.streaming and field in learned)]

    def encoded() -> tuple[dict[str, Corpus], dict[str, Any]]:
        return {field: reading.encoded(sources[field], field) for field in now}, skipped.to_json()

    made, left_out = ranks.from_first(encoded)
    if ranks.rank():
        skipped.merge(left_out)
    train = [made[field] for field in learned if field in made]
    validation = [made[field] for field in now if field not in learned]
    if spec.data.validation_share:
        train, validation = corpus.hold_back(train, share=spec.data.validation_share, seed=spec.train.seed)
    stream = None
    if spec.data.streaming:
        streamed = [sources[field] for field in learned]
        stream = reading.blocks(streamed, size=spec.packing.look_ahead, seed=spec.train.seed)
    return Lessons(train=train, validation=validation, stream=stream, skipped=skipped, encoder=reading.encoder)


def _loss_on(spec: LlmTrain) -> Literal["responses", "all"]:
    return spec.data.loss_on or ("responses" if spec.method == "sft" else "all")


def _prepared(
    spec: LlmTrain, ctx: Context, model: Resolved, tokenizer: Any, *, added: tuple[str, ...], chosen: Precision
) -> Prepared:
    wanted, memory_gb = spec.optimize, spec.compute.memory_gb
    given = ctx.inputs.get("model")
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
        checkpointing=wanted.checkpointing,
        offload=wanted.offload,
        seq_len=spec.batch.seq_len,
        rows=spec.batch.rows,
        packing=spec.packing.mode,
        device=ctx.device,
        seed=spec.train.seed,
        memory_bytes=None if memory_gb is None else int(memory_gb * GB),
        base=None if given is None else Base(ref=given.ref, digest=given.digest),
        trust_remote_code=_trusts(spec),
        say=ctx.log,
    )


def _adapter(spec: LlmTrain) -> Adapter | None:
    wanted = spec.adapter
    if wanted.type == "none":
        return None
    return Adapter(
        type=wanted.type,
        r=wanted.r,
        alpha=wanted.alpha,
        dropout=wanted.dropout,
        target_modules=tuple(wanted.target_modules),
        modules_to_save=tuple(wanted.modules_to_save),
    )


def _steps(spec: LlmTrain, ctx: Context, model: Resolved, prepared: Prepared, lessons: Lessons) -> Loader | StreamSteps:
    """The steps of this process; what a row may hold is known of the prepared model."""
    layout = _layout(spec, model, prepared, accumulate=spec.batch.accumulate)
    if lessons.stream is not None:
        assert spec.train.max_steps is not None, "the schema refuses a stream without an end"
        journal = ctx.checkpoints / "blocks.jsonl"
        return StreamSteps(**layout, blocks=lessons.stream, journal=journal, max_steps=spec.train.max_steps)
    return Loader(
        **layout,
        corpora=lessons.train,
        weights=[one.weight for one in spec.data.train],
        look_ahead=spec.packing.look_ahead,
        seed=spec.train.seed,
        epochs=spec.train.epochs,
        max_steps=spec.train.max_steps,
    )


def _layout(spec: LlmTrain, model: Resolved, prepared: Prepared, *, accumulate: int) -> dict[str, Any]:
    batch, pad = spec.batch, prepared.tokenizer.pad_token_id
    return {
        "packed": prepared.packed,
        "seq_len": batch.seq_len,
        "rows": batch.rows,
        "accumulate": accumulate,
        "pad_id": 0 if pad is None else pad,  # whatever it is: it is masked, and never learned
        "long": spec.packing.long,
        "most_documents": max(1, max_documents(model.facts, batch.seq_len * batch.rows)),
        "rank": ranks.rank(),
        "size": ranks.size(),
        "hidden": model.facts["hidden"],
        "position_axes": form.position_axes(prepared.model.config),
    }


def _strategy(spec: LlmTrain, ctx: Context, model: Resolved, prepared: Prepared) -> Strategy:
    """How the processes share the model."""
    wanted, memory_gb = spec.distribution, spec.compute.memory_gb
    checkpointing = "off" if prepared.checkpointed is None else "required"
    chunked = spec.optimize.loss_chunking != "off"
    work = working(prepared.forecast, checkpointing=checkpointing, chunked=chunked)
    return strategy.begin(
        wanted.strategy,
        prepared.model,
        processes=ranks.size(),
        device=ctx.device,
        precision=prepared.precision.name,
        optimizer=spec.train.optimizer,
        offload=wanted.offload,
        given=None if wanted.deepspeed is None else ctx.inputs["distribution.deepspeed"].path,
        demand=Demand(forecast=prepared.forecast, layers=model.facts["layers"], working=work),
        memory=None if memory_gb is None else int(memory_gb * GB),
    )


def _examiner(spec: LlmTrain, ctx: Context, model: Resolved, prepared: Prepared, lessons: Lessons) -> Examiner | None:
    """What is measured while it learns: the validation data, once a document, and answers."""
    wanted, held = spec.evaluation, lessons.validation
    if not held and not wanted.prompts:
        return None
    layout = _layout(spec, model, prepared, accumulate=ranks.size())
    return Examiner(
        Loader(**layout, corpora=held, weights=[1.0] * len(held), seed=0, epochs=1) if held else None,
        tokenizer=prepared.tokenizer,
        prompts=[Prompt(text=text, ids=tuple(lessons.encoder.ask(text))) for text in wanted.prompts],
        tokens=wanted.prompt_tokens,
        check=ctx.check,
    )


def _recipe(spec: LlmTrain, chosen: Precision) -> Recipe:
    train, measured = spec.train, spec.evaluation
    what = "architecture" if spec.model is None else "model" if spec.adapter.type == "none" else "adapter"
    return Recipe(
        rate=Rate(
            highest=train.learning_rate or RATES[what],
            schedule=train.schedule,
            warmup=train.warmup,
            floor=train.floor,
        ),
        accumulate=spec.batch.accumulate,
        optimizer=train.optimizer,
        weight_decay=train.weight_decay,
        betas=(train.betas[0], train.betas[1]),
        clip_norm=train.clip_norm,
        neftune_alpha=train.neftune_alpha,
        precision=chosen.name,
        every_steps=measured.every_steps,
        save_every_steps=measured.save_every_steps,
        patience=measured.patience,
        best=measured.best,
        seed=train.seed,
    )


def _keep(
    ctx: Context,
    prepared: Prepared,
    checkpoints: Checkpoints,
    skipped: Skipped,
    done: Done,
) -> None:
    keep.save(prepared, ctx.out, done.state)
    shutil.copyfile(checkpoints.folder / journal.TRAINING, ctx.out / journal.TRAINING)
    shutil.copyfile(checkpoints.folder / journal.SPEED, ctx.records / journal.SPEED)
    if answers := samples.rows(done.history):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in answers)
        (ctx.out / "samples.jsonl").write_text("".join(lines), encoding="utf-8")
    if skipped.total:
        skipped.write(ctx.out / "skipped.jsonl")
