"""`asr-embed`: put recordings through a CTC model, pool what its layers say, write vectors and whose they are."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any

from runner.asr import portuguese, sweep
from runner.asr.embed import writer as embed_writer
from runner.asr.embed.collector import DTYPES, EmbedCollector, Vectors
from runner.asr.embed.engine import Embedder, Wanted
from runner.asr.embed.writer import Written
from runner.asr.pieces import Setup
from runner.asr.recordings import Clip
from runner.asr.sweep import Shape, Sweep
from runner.asr.tables import plots
from runner.context import Context, Result
from runner.registry.family import Resolved
from runner.schema.errors import JobError
from runner.schema.jobs.asr_embed import AsrEmbed
from runner.schema.reference import is_reference

Fields = dict[str, Any]
MB = 1_000_000


def run(spec: AsrEmbed, ctx: Context) -> Result:
    """Embed every recording of ``spec``; see ``runner.asr`` for the parts."""
    loading = spec.model.model_dump(include={"adapter", "allow_pickle", "trust_remote_code"})
    model = sweep.model(ctx, **loading)
    if reason := spec.unfit(model.facts):  # known to the plan, but for a model that was not made yet
        raise JobError(reason, failure="ModelInvalid")
    setup, wanted = _setup(spec, ctx, model, loading), _wanted(spec, model)
    heard = sweep.prepare(ctx, setup, _clips(spec, ctx), shape=_shape(spec, model), model_type=model.model_type)
    spool = heard.spool(ctx)
    vectors = Vectors(ctx.checkpoints, spool, DTYPES[spec.dtype])
    try:
        collector = EmbedCollector(spool, heard.layout, heard.found, setup, wanted=wanted, vectors=vectors)
        sweep.hear(ctx, heard, spool, collector, engine=partial(Embedder, wanted=wanted))
        written = embed_writer.write(
            spool,
            vectors,
            heard.found,
            out=ctx.out,
            records=ctx.records,
            wanted=wanted,
            format=spec.format,
            most_bytes=spec.shard_mb * MB,
            shown=lambda recording: os.path.relpath(recording.clip.path, ctx.folder),
        )
    finally:
        vectors.close()
        spool.close()
    about = _about(spec, model, setup, wanted, written)
    (ctx.out / "embeddings.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return Result(
        metrics=_metrics(written, heard, about),
        ledger=heard.ledger(ctx),
        tables=(written.table,),
        plots=plots(written.summary),
        timings=sweep.timings(heard, written.summary),
        notes=_notes(written),
        failure=sweep.failure(written.summary, done="embedded", fatal=spec.on_error == "fail"),
    )


def _setup(spec: AsrEmbed, ctx: Context, model: Resolved, loading: Fields) -> Setup:
    return Setup(
        source=sweep.source(ctx, model, **loading),
        task=model.family.task,
        precision=spec.precision,
        device=ctx.device,
        threads=ctx.threads,
        timestamps="word",
        silence_db=float("-inf") if spec.silence == "keep" else spec.audio.silence_db,
    )


def _wanted(spec: AsrEmbed, model: Resolved) -> Wanted:
    return Wanted(
        layers=spec.numbered(model.facts["layers"]),
        weights=None if spec.weights is None else tuple(spec.weights),
        pooling=spec.pooling,
        words=spec.words,
        text=None if spec.text is None else portuguese.Settings(**spec.text.model_dump()),
        dtype=spec.dtype,
    )


def _clips(spec: AsrEmbed, ctx: Context) -> list[Clip]:
    manifest = spec.data.manifest
    name = None if manifest is None or is_reference(manifest) else manifest
    clips = sweep.clips(ctx, name=name, root=spec.data.root)
    if spec.words == "given" and clips and all(clip.text is None for clip in clips):
        raise JobError(
            f"words is 'given', but none of the {len(clips)} recordings has a text: give data.manifest a text column, "
            "or take words: heard",
            failure="DataInvalid",
        )
    return clips


def _shape(spec: AsrEmbed, model: Resolved) -> Shape:
    features = model.facts["hidden"] * (len(spec.layers) if spec.weights is None else 1)
    return Shape(
        channels=spec.audio.channels,
        window_s=spec.window.length_s,
        context_s=spec.window.context_s,
        batch_s=spec.batch.seconds,
        batch_windows=spec.batch.files,
        frame_bytes=4 * features,
        together=True,
    )


def _about(spec: AsrEmbed, model: Resolved, setup: Setup, wanted: Wanted, written: Written) -> Fields:
    return embed_writer.describe(
        wanted,
        written,
        hidden=model.facts["hidden"],
        rate=setup.source.rate,
        stride=setup.source.stride,
        silence=spec.silence,
    )


def _metrics(written: Written, heard: Sweep, about: Fields) -> Fields:
    shared = written.summary.metrics()
    del shared["confidence"]  # nothing is said
    told = ("vectors", "dimension", "dtype", "layers", "pooling", "stride_samples", "frame_s")
    return {**shared, **{name: about[name] for name in told}, "windows": len(heard.plan.order)}


def _notes(written: Written) -> tuple[str, ...]:
    summary = written.summary
    return (f"{summary.failed} of {summary.files} recordings have no vector",) if summary.failed else ()
