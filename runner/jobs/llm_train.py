"""`llm-train`: read and encode the corpora, begin with a model or an architecture, train, measure, keep."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from runner import precision, ranks
from runner.checkpoints import Checkpoints
from runner.context import Context, Result
from runner.llm import corpus, encoding, outcome
from runner.llm.corpus import Corpus
from runner.llm.data import corpora
from runner.llm.data.corpora import Source
from runner.llm.data.sample import Sample
from runner.llm.data.skipped import Skipped
from runner.llm.model import architecture, begin, keep
from runner.llm.model import vocabulary as entries
from runner.llm.model.prepared import Adapter, Base, Prepared
from runner.llm.packing.loader import Loader
from runner.llm.text import template, vocabulary
from runner.llm.text.template import Template
from runner.llm.text.tokens import Encoder
from runner.llm.training import journal, samples, session
from runner.llm.training.evaluate import Examiner
from runner.llm.training.recipe import Rate, Recipe
from runner.llm.training.session import Done
from runner.llm.training.tell import Tell
from runner.precision import Precision
from runner.registry.family import Resolved
from runner.registry.forecast import max_documents
from runner.registry.resolve import resolve
from runner.schema.errors import JobError
from runner.schema.jobs.llm_train import LlmTrain

RATES = {"adapter": 2e-4, "model": 2e-5, "architecture": 1e-3}  # what trains well, by what is trained
GB = 10**9


def run(spec: LlmTrain, ctx: Context) -> Result:
    """Train a model as ``spec`` says; see ``runner.llm`` for the parts."""
    result: Result = ctx.team.run(partial(_train, spec), ctx)
    return result


def _train(spec: LlmTrain, ctx: Context) -> Result:
    """What each process of the team does. The first one reads and encodes for all."""
    began = time.perf_counter()
    chosen = precision.choose(spec.precision, device=ctx.device)
    checkpoints = Checkpoints(ctx.checkpoints / "training")
    ranks.from_first(lambda: checkpoints.check({"precision": chosen.name, "device": ctx.device}))
    model = ranks.from_first(lambda: _model(spec, ctx))
    tokenizer, added = entries.open(_folder(model), add=spec.tokens.add, trust_remote_code=_trusts(spec))
    chat = _template(spec, ctx, model, tokenizer)
    train, validation, skipped = ranks.from_first(lambda: _corpora(spec, ctx, tokenizer, chat))
    read_s = time.perf_counter() - began
    prepared = _prepared(spec, ctx, model, tokenizer, added=added, chosen=chosen)
    steps, prepared = _steps(spec, ctx, model, prepared, train)
    examiner = _examiner(spec, ctx, model, prepared, validation)
    began = time.perf_counter()
    done = session.train(
        prepared,
        steps,
        recipe=_recipe(spec, chosen),
        checkpoints=checkpoints,
        tell=Tell(progress=ctx.progress, log=ctx.log, metric=ctx.metric, check=ctx.check),
        device=ctx.device,
        examiner=examiner,
        track=tuple(spec.track),
        track_folder=ctx.records / "curves",
    )
    trained_s = time.perf_counter() - began
    if ranks.rank() == 0:
        _keep(ctx, prepared, checkpoints, skipped, done)
    return outcome.result(
        prepared=prepared,
        done=done,
        rows=list(journal.rows(checkpoints.folder / journal.TRAINING)),
        steps=steps,
        train=train,
        validation=validation,
        skipped=skipped,
        said=[] if chat is None else [chat.why],
        timings={"reading": read_s, "training": trained_s},
    )


def _model(spec: LlmTrain, ctx: Context) -> Resolved:
    """What training begins with; an architecture is made first, with a tokenizer of the training texts."""
    if spec.model is not None:
        loading = spec.model.model_dump(include={"adapter", "allow_pickle", "trust_remote_code"})
        found = resolve(str(ctx.inputs["model"].path.absolute()), folder=ctx.folder, **loading)
        if reason := spec.unfit(found.facts):  # known to the plan, but for a model that was not made yet
            raise JobError(reason, failure="ModelInvalid")
        return found
    sizes = spec.architecture.model_dump()
    folder = ctx.checkpoints / "start"
    if not folder.exists():
        learned = vocabulary.learn(vocabulary.texts(_samples(spec, ctx)), size=spec.architecture.vocabulary)
        architecture.make(folder, **sizes, tokenizer=learned, seed=spec.train.seed)
        ctx.log(f"a tokenizer of {len(learned):,} entries was learned from data.train")
    return resolve(str(folder), folder=ctx.folder)


def _samples(spec: LlmTrain, ctx: Context) -> Iterator[Sample]:
    """All samples of data.train, for a vocabulary; what is broken is told when they are encoded."""
    for source in _sources(spec, ctx)["train"]:
        rows = corpora.open(source, skipped=Skipped("skip"))
        yield from (sample for _, sample in rows.samples())


def _folder(model: Resolved) -> Path:
    assert model.path is not None, "a model that is fetched lies in a folder"
    return Path(model.path)


def _trusts(spec: LlmTrain) -> bool:
    return spec.model is not None and spec.model.trust_remote_code


def _template(spec: LlmTrain, ctx: Context, model: Resolved, tokenizer: Any) -> Template | None:
    given = ctx.inputs["data.template"].path.read_text("utf-8") if spec.data.template is not None else None
    chat = template.choose(tokenizer, given=given, family=model.family.name, model=_folder(model))
    if chat is not None:
        ctx.log(chat.why)
        tokenizer.chat_template = chat.text
    return chat


def _sources(spec: LlmTrain, ctx: Context) -> dict[str, list[Source]]:
    """Where the corpora lie on this machine, and how they are read."""
    train = [
        _source(ctx, f"data.train[{number}]", **one.model_dump(exclude={"revision"}))
        for number, one in enumerate(spec.data.train)
    ]
    validation = [
        _source(ctx, f"data.validation[{number}]", **held.model_dump(exclude={"revision"}))
        for number, held in enumerate(spec.data.validation)
    ]
    return {"train": train, "validation": validation}


def _source(ctx: Context, field: str, *, source: str, **reading: Any) -> Source:
    given = ctx.inputs[f"{field}.source"]
    return Source(name=source, files=tuple(ctx.folder / file for file in given.files) or (given.path,), **reading)


def _corpora(
    spec: LlmTrain, ctx: Context, tokenizer: Any, chat: Template | None
) -> tuple[list[Corpus], list[Corpus], Skipped]:
    """The documents that are learned, those that are measured on, and what was left out."""
    share, skipped = spec.data.validation_share, Skipped(spec.data.on_error)
    encoder = Encoder(tokenizer, chat, loss_on=_loss_on(spec))
    made = {
        field: [
            encoding.encoded(
                source,
                encoder=encoder,
                skipped=skipped,
                folder=ctx.checkpoints / "corpora" / f"{field}-{number}",
                say=ctx.log,
                check=ctx.check,
            )
            for number, source in enumerate(sources)
        ]
        for field, sources in _sources(spec, ctx).items()
    }
    if share:
        return *corpus.hold_back(made["train"], share=share, seed=spec.train.seed), skipped
    return made["train"], made["validation"], skipped


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


def _steps(
    spec: LlmTrain, ctx: Context, model: Resolved, prepared: Prepared, train: list[Corpus]
) -> tuple[Loader, Prepared]:
    """The steps of this process, and the model as the probe left it: it may find that rows cannot be packed."""
    steps = _train_steps(spec, model, prepared, train)
    if not spec.optimize.probe:
        return steps, prepared
    probed = begin.probe(prepared, next(steps.begin(0)).batches[0])
    if probed.packed != prepared.packed:
        steps = _train_steps(spec, model, probed, train)
    return steps, probed


def _train_steps(spec: LlmTrain, model: Resolved, prepared: Prepared, train: list[Corpus]) -> Loader:
    return _loader(
        spec,
        model,
        prepared,
        train,
        weights=[one.weight for one in spec.data.train],
        accumulate=spec.batch.accumulate,
        epochs=spec.train.epochs,
        max_steps=spec.train.max_steps,
    )


def _loader(
    spec: LlmTrain,
    model: Resolved,
    prepared: Prepared,
    corpora: list[Corpus],
    *,
    weights: Sequence[float],
    accumulate: int,
    epochs: float | None,
    max_steps: int | None = None,
) -> Loader:
    batch, packing, pad = spec.batch, spec.packing, prepared.tokenizer.pad_token_id
    return Loader(
        corpora=corpora,
        weights=weights,
        packed=prepared.packed,
        seq_len=batch.seq_len,
        rows=batch.rows,
        accumulate=accumulate,
        seed=spec.train.seed,
        pad_id=0 if pad is None else pad,  # whatever it is: it is masked, and never learned
        long=packing.long,
        look_ahead=packing.look_ahead,
        most_documents=max(1, max_documents(model.facts, batch.seq_len * batch.rows)),
        epochs=epochs,
        max_steps=max_steps,
        rank=ranks.rank(),
        size=ranks.size(),
        hidden=model.facts["hidden"],
    )


def _examiner(
    spec: LlmTrain, ctx: Context, model: Resolved, prepared: Prepared, validation: list[Corpus]
) -> Examiner | None:
    """What is measured while it learns: the validation data, and answers."""
    wanted, tokenizer = spec.evaluation, prepared.tokenizer
    if not validation and not wanted.prompts:
        return None
    weights = [1.0] * len(validation)
    return Examiner(
        _loader(spec, model, prepared, validation, weights=weights, accumulate=ranks.size(), epochs=1)
        if validation
        else None,
        tokenizer=tokenizer,
        prompts=samples.prompts(wanted.prompts, tokenizer, template=tokenizer.chat_template),
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
