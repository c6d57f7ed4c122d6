"""`asr-quantize`: make each variant, let all hear the validation data, time them, compare, pick one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner import precision
from runner.asr import portuguese, recordings, sweep
from runner.asr.collector import Collector
from runner.asr.pieces import Piece, Setup, Source
from runner.asr.quantise import compare, report, stopwatch
from runner.asr.quantise.compare import Measured, Row
from runner.asr.quantise.maker import Done, Maker, Making
from runner.asr.quantise.stopwatch import Laps, Stopwatch, Timing
from runner.asr.recordings import Clip
from runner.asr.sweep import Shape, Sweep
from runner.context import Context, Result
from runner.registry.family import Resolved
from runner.schema.errors import JobError
from runner.schema.jobs.asr_quantize import AsrQuantize
from runner.schema.reference import is_reference

Fields = dict[str, Any]
UNQUANTISED = "unquantised"


def run(spec: AsrQuantize, ctx: Context) -> Result:
    """Carry ``spec`` out; see ``runner.asr.quantise`` for the parts."""
    loading = spec.model.model_dump(include={"adapter", "allow_pickle", "trust_remote_code"})
    model = sweep.model(ctx, **loading)
    if reason := spec.unfit(model.facts):  # known to the plan, but for a model that was not made yet
        raise JobError(reason, failure="ModelInvalid")
    precision.choose(spec.precision, device=ctx.device)  # what this device cannot do is said before the work
    setup = _setup(spec, ctx, model, loading)
    heard = _prepared(spec, ctx, setup, model, field="validation")
    _check_texts(heard)
    made = _made(spec, ctx, setup, model, heard)
    sources = {one.name: _source(ctx, setup, one.name) for one in made if one.status == "ok"}
    before = _measured(ctx, heard, UNQUANTISED)
    found = {
        name: _measured(ctx, heard, name, source=source, precision=spec.precision) for name, source in sources.items()
    }
    laps = _timed(spec, ctx, setup, heard, sources)
    size = int(model.facts["weights_bytes"])
    rows = [
        Row(
            done=one,
            measured=found[one.name],
            rise=compare.rise(before, found[one.name]),
            laps=laps[one.name],
            compression=size / one.bytes,
        )
        for one in made
        if one.status == "ok"
    ]
    rest = [one for one in made if one.status != "ok"]
    picked, unmet = compare.pick(rows, spec.pick, limits=spec.gates.model_dump())
    _write(spec, ctx, rows, rest, picked=picked.name, before=before, size=size)
    return Result(
        metrics=_metrics(rows, picked, before=before, made=made) | _text_metrics(spec),
        intervals=_intervals(picked, before),
        ledger=report.ledger(rows, rest),
        tables=report.tables(rows, rest, before=before, size=size),
        plots=report.plots(rows),
        timings={"headers": heard.headers_s, **{f"make {one.name}": one.seconds for one in made}},
        notes=(*unmet, *_notes(spec, picked, rows, rest)),
    )


def _setup(spec: AsrQuantize, ctx: Context, model: Resolved, loading: Fields) -> Setup:
    return Setup(
        source=sweep.source(ctx, model, **loading),
        task=model.family.task,
        precision="fp32",
        device=ctx.device,
        threads=ctx.threads,
        silence_db=spec.audio.silence_db,
    )


def _prepared(spec: AsrQuantize, ctx: Context, setup: Setup, model: Resolved, *, field: str) -> Sweep:
    """The recordings of one table, cut into windows."""
    shape = Shape(
        channels=spec.audio.channels,
        window_s=spec.window.length_s,
        context_s=spec.window.context_s,
        batch_s=spec.batch.seconds,
        batch_windows=spec.batch.files,
    )
    return sweep.prepare(ctx, setup, _clips(spec, ctx, field), shape=shape, model_type=model.model_type)


def _clips(spec: AsrQuantize, ctx: Context, field: str) -> list[Clip]:
    table = getattr(spec.data, field)
    clips = recordings.from_manifest(
        ctx.inputs[f"data.{field}"].path,
        name=None if is_reference(table) else table,
        root=spec.data.root,
        folder=ctx.folder,
        unpacked=ctx.checkpoints / "recordings" / field,
    )
    text = _text(spec)
    return recordings.said(clips, None if text is None else portuguese.normaliser(text))


def _text(spec: AsrQuantize) -> portuguese.Settings | None:
    return None if spec.text is None else portuguese.Settings(**spec.text.model_dump())


def _check_texts(heard: Sweep) -> None:
    """Without a reference nothing can be said of errors: say so before the work."""
    if not any(one.clip.text and one.samples for one in heard.found):
        raise JobError(
            f"none of the {len(heard.found)} recordings of data.validation can be heard and has a text to compare with",
            failure="DataInvalid",
        )


def _made(spec: AsrQuantize, ctx: Context, setup: Setup, model: Resolved, heard: Sweep) -> list[Done]:
    """Every variant that the spec names, in its order; those that an earlier attempt made are kept."""
    kept = ctx.checkpoints / "made.json"
    done = {one["name"]: Done(**one) for one in (json.loads(kept.read_text("utf-8")) if kept.exists() else [])}
    missing = [name for name in spec.variants if name not in done]
    making = Making(
        source=setup.source,
        parameters=model.facts["parameters"],
        threads=ctx.threads,
        group=spec.int4.group_size,
        calibration=_calibration(spec, ctx, setup, model, heard) if "int8-static" in missing else (),
        folder=ctx.checkpoints / "variants",
    )
    ctx.progress(len(done), len(spec.variants), "variants made")
    for _, one in ctx.pool.imap(partial(Maker, making), missing):
        done[one.name] = one
        ctx.log(f"{one.name}: {one.why or f'{one.bytes:,} bytes'}")
        fresh = kept.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(one) for one in done.values() if one.status == "ok"]), "utf-8")
        fresh.replace(kept)
        ctx.progress(len(done), len(spec.variants), "variants made")
    if not any(one.status == "ok" for one in done.values()):
        reasons = "; ".join(f"{one.name}: {one.why}" for one in done.values())
        raise JobError(f"none of the variants could be made: {reasons}", failure="Infeasible")
    return [done[name] for name in spec.variants]


def _calibration(spec: AsrQuantize, ctx: Context, setup: Setup, model: Resolved, heard: Sweep) -> list[Piece]:
    source = heard if spec.data.calibration is None else _prepared(spec, ctx, setup, model, field="calibration")
    first = np.flatnonzero(source.layout.windows == 0)
    return [source.layout.piece(int(k)) for k in _spread(first, spec.calibration.recordings)]


def _spread(items: NDArray[np.int64], count: int) -> list[int]:
    """At most ``count`` of ``items``, evenly spaced."""
    picked = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [int(items[at]) for at in picked]


def _source(ctx: Context, setup: Setup, name: str) -> Source:
    """A variant as a model to load: an adapter is part of its weights."""
    return replace(setup.source, folder=str(ctx.checkpoints / "variants" / name), adapter=None, allow_pickle=False)


def _measured(ctx: Context, heard: Sweep, name: str, **changes: Any) -> Measured:
    """What one form of the model makes of the validation data; ``changes`` to the setup."""
    ctx.log(f"{name}: transcribing {len(heard.found)} recordings")
    own = replace(ctx, checkpoints=ctx.checkpoints / "heard" / name)
    own.checkpoints.mkdir(parents=True, exist_ok=True)
    setup = replace(heard.setup, **changes)
    spool = heard.spool(own)
    try:
        sweep.hear(own, replace(heard, setup=setup), spool, Collector(spool, heard.layout, heard.found, setup))
        said = next((line.why for line in heard.ledger(own) if line.what == "precision"), "nothing was heard")
        return compare.measured(heard.found, [spool.read(at)[0] for at in range(len(heard.found))], precision=said)
    finally:
        spool.close()


def _timed(spec: AsrQuantize, ctx: Context, setup: Setup, heard: Sweep, sources: dict[str, Source]) -> dict[str, Laps]:
    """Every variant against plain transformers. In one worker, whatever their number: others would be in the way."""
    first = np.flatnonzero(heard.layout.windows == 0)
    by_length = first[np.argsort(heard.layout.lengths[first], kind="stable")]
    timing = Timing(
        source=setup.source,
        precision=spec.precision,
        device=ctx.device,
        threads=ctx.threads,
        pieces=[heard.layout.piece(k) for k in _spread(by_length, spec.speed.recordings)],
        rounds=spec.speed.rounds,
    )
    alone = ctx.pool.workers == 1
    items = [{name: source} for name, source in sources.items()] if alone else [sources]
    laps: list[Laps] = []
    ctx.progress(0, len(sources), "variants timed")
    for _, some in ctx.pool.imap(partial(Stopwatch, timing), items):
        laps += some
        ctx.progress(len(laps), len(sources), "variants timed")
    return {one.variant: one for one in laps}


def _write(
    spec: AsrQuantize,
    ctx: Context,
    rows: Sequence[Row],
    rest: Sequence[Done],
    *,
    picked: str,
    before: Measured,
    size: int,
) -> None:
    """variants/, model/, comparison.json; speed.json among the records."""
    for row in rows:
        _link(ctx.checkpoints / "variants" / row.name, ctx.out / "variants" / row.name)
    _link(ctx.checkpoints / "variants" / picked, ctx.out / "model")
    said = compare.comparison(rows, rest, before=before, size=size, picked=picked, by=spec.pick)
    _json(ctx.out / "comparison.json", said)
    _json(ctx.records / "speed.json", stopwatch.record([row.laps for row in rows]))


def _link(given: Path, to: Path) -> None:
    """The files of ``given`` under another name, without taking room twice where the file system can."""
    shutil.copytree(given, to, copy_function=_place)


def _place(given: str, to: str) -> None:
    try:
        os.link(given, to)
    except OSError:  # no hard links there, or no more of this file; a disk that refuses both says so of the copy
        shutil.copyfile(given, to)


def _json(path: Path, content: Fields) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")


def _metrics(rows: Sequence[Row], picked: Row, *, before: Measured, made: Sequence[Done]) -> Fields:
    """Of the variant that was picked, and of all."""
    return {
        "picked": picked.name,
        "wer": picked.measured.wer,
        "unquantised_wer": before.wer,
        **picked.metrics(),
        "utterances_scored": before.scores.utterances,
        "failed": picked.measured.failed,
        "unquantised_failed": before.failed,
        "made": len(rows),
        "not_made": len(made) - len(rows),
        "variants": {
            row.name: {"wer": row.measured.wer, **row.metrics(), "failed": row.measured.failed} for row in rows
        },
    }


def _text_metrics(spec: AsrQuantize) -> Fields:
    """How texts were written before they were compared with, as `asr-finetune` says it."""
    text = _text(spec)
    return {} if text is None else {"text": portuguese.describe(text)}


def _intervals(picked: Row, before: Measured) -> dict[str, tuple[float, float]]:
    found = {
        "wer": picked.measured.scores.rates[0].words.interval,
        "unquantised_wer": before.scores.rates[0].words.interval,
        "wer_rise": picked.rise.interval,
    }
    return {name: pair for name, pair in found.items() if pair is not None}


def _notes(spec: AsrQuantize, picked: Row, rows: Sequence[Row], rest: Sequence[Done]) -> list[str]:
    notes = [f"picked {picked.name}, by {spec.pick.replace('_', ' ')}", *(f"{one.name}: {one.why}" for one in rest)]
    notes += [
        f"{row.name}: could not transcribe {row.rise.lost} of {row.rise.recordings} recordings that the unquantised "
        "model could; all their words count as wrong in its rise"
        for row in rows
        if row.rise.lost
    ]
    if "int8-static" in spec.variants and spec.data.calibration is None:
        notes.append("int8-static was calibrated on recordings of the validation data (on sound alone, not on texts)")
    return notes
