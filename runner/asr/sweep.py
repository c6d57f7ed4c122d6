"""One pass of a model over all recordings: list, cut, batch, hand out, collect. What every kind that hears shares."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runner.asr import batches, recordings, sizing, windows
from runner.asr.layout import DEAL_BATCHES, Layout
from runner.asr.packed import pads
from runner.asr.pieces import Answer, Setup, Source
from runner.asr.probe import Probe
from runner.asr.recordings import Channels, Clip, Recording
from runner.asr.sizing import Sizing
from runner.asr.spool import Spool
from runner.asr.tables import ledger as lines_of
from runner.asr.transcriber import MakeEngine, Transcriber
from runner.asr.writer import Summary
from runner.context import Context, LedgerLine, Worker
from runner.registry.family import Resolved
from runner.registry.resolve import resolve
from runner.schema.errors import JobError

Fields = dict[str, Any]
MakeWorker = Callable[[Setup], Worker]  # called with deals, answers each with an `Answer`


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How recordings become windows and windows become batches."""

    channels: Channels
    window_s: float
    context_s: float
    batch_s: float | None  # None: sized to the device
    batch_windows: int
    least_s: float = 0.0  # that the model computes whatever a window holds
    frame_bytes: int = 0  # of output; 0: few enough not to matter
    together: bool = False  # windows of one recording come one after another, so that few recordings are half done


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What will be heard, in which batches."""

    setup: Setup
    found: list[Recording]
    layout: Layout
    plan: batches.Plan
    size: Sizing
    deal: int  # batches that a worker is given at once, at most
    headers_s: float  # seconds that reading the headers took

    def spool(self, ctx: Context) -> Spool:
        """The checkpoint of this work; close it."""
        return Spool(ctx.checkpoints, items=len(self.found), plan=f"{self.layout.digest()} on {ctx.device}")

    def ledger(self, ctx: Context) -> tuple[LedgerLine, ...]:
        """What was done for speed, and why, by what the workers of all attempts said."""
        return lines_of(_read(_about_file(ctx)), plan=self.plan, size=self.size)


def model(ctx: Context, **loading: Any) -> Resolved:
    """What the job's model is. ``loading``: adapter, allow_pickle, trust_remote_code."""
    return resolve(str(ctx.inputs["model"].path.absolute()), folder=ctx.folder, **loading)


def source(ctx: Context, model: Resolved, **loading: Any) -> Source:
    """The same for the workers."""
    facts = model.facts
    return Source(
        folder=str(ctx.inputs["model"].path),
        rate=facts["sample_rate"],
        stride=facts["stride_samples"],
        receptive=facts["receptive_samples"],
        waveform=model.family.features == "waveform",
        normalise=facts["do_normalize"],
        mask=facts["mask"],
        **loading,
    )


def clips(ctx: Context, *, name: str | None, root: str | None) -> list[Clip]:
    """The recordings that the job's data names; ``name`` and ``root`` as `recordings.from_manifest` takes them."""
    given = ctx.inputs.get("data.manifest")
    if given is None:
        return list(recordings.from_files(ctx.inputs["data.audio"].files, folder=ctx.folder))
    unpacked = ctx.checkpoints / "recordings"
    return list(recordings.from_manifest(given.path, name=name, root=root, folder=ctx.folder, unpacked=unpacked))


def prepare(ctx: Context, setup: Setup, clips: list[Clip], *, shape: Shape, model_type: str) -> Sweep:
    """Read the headers, cut, and plan the batches. Raises JobError where nothing is there to hear."""
    began = time.perf_counter()
    found = _listed(ctx, clips, channels=shape.channels, source=setup.source)
    headers_s = time.perf_counter() - began
    rate, receptive, stride = setup.source.rate, setup.source.receptive, setup.source.stride
    cut = windows.cut(length_s=shape.window_s, context_s=shape.context_s, rate=rate, stride=stride, receptive=receptive)
    layout = Layout(found, cut)
    second_bytes = shape.frame_bytes * rate / stride
    size = _sizing(ctx, setup, shape)
    if shape.batch_s is None:
        size = sizing.bounded(size, second_bytes=second_bytes)
    packed = not pads(model_type, device=setup.device)
    plan = batches.plan(
        _lengths(layout, shape, rate=rate), size.size(rate=rate, windows=shape.batch_windows, packed=packed)
    )
    return Sweep(
        setup=setup,
        found=found,
        layout=layout,
        plan=plan,
        size=size,
        deal=min(DEAL_BATCHES, sizing.handed_over(size, second_bytes=second_bytes)),
        headers_s=headers_s,
    )


def _listed(ctx: Context, clips: list[Clip], *, channels: Channels, source: Source) -> list[Recording]:
    listed = []
    for recording in recordings.recordings(
        clips, channels=channels, rate=source.rate, receptive=source.receptive, threads=4 * ctx.threads
    ):
        listed.append(recording)
        if len(listed) % 1000 == 0:
            ctx.check()
    if not listed:
        raise JobError("there are no recordings: the manifest has no rows", failure="DataInvalid")
    return listed


def _lengths(layout: Layout, shape: Shape, *, rate: int) -> NDArray[np.int64]:
    """Samples to plan batches with, by window. Equal lengths stay in order, so with ``together`` the windows of a
    recording all count as its longest; only its last one is shorter."""
    lengths = layout.lengths
    if shape.together:
        lengths = lengths[np.arange(len(lengths)) - layout.windows]
    return np.maximum(lengths, round(shape.least_s * rate))


def _sizing(ctx: Context, setup: Setup, shape: Shape) -> Sizing:
    """The batch size asked for, or the device's; an earlier attempt's is kept: a resumed job plans the same batches."""
    if shape.batch_s is not None:
        return sizing.asked(shape.batch_s)
    if setup.device == "cpu":
        return sizing.on_cpu()
    path = ctx.checkpoints / f"sizing-{ctx.device}.json"
    if path.exists():
        return Sizing(**_read(path))
    [(_, memory)] = ctx.pool.imap(partial(Probe, setup), [max(shape.window_s, shape.least_s)])
    size = sizing.on_gpu(memory)
    _keep(path, vars(size))
    return size


class Collects(Protocol):
    """Where the workers' answers go: `Collector`, or one that keeps something else."""

    done: int  # recordings

    def start(self) -> None:
        """Keep what is known without a worker."""
        ...

    def resume(self) -> None:
        """Finish what the last attempt left unfinished though all of it is there."""
        ...

    def take(self, answer: Answer) -> None:
        """Keep one worker's answer."""
        ...


def hear(
    ctx: Context,
    sweep: Sweep,
    spool: Spool,
    collector: Collects,
    *,
    engine: MakeEngine | None = None,
    worker: MakeWorker | None = None,
) -> None:
    """Put all windows that are not done yet through the model; ``engine`` as `Transcriber` takes it, ``worker`` makes
    another worker than that."""
    collector.start()
    collector.resume()
    total = len(sweep.found)
    deals = sweep.layout.deals(sweep.plan, workers=ctx.pool.workers, done=spool.has, most=sweep.deal)
    ctx.progress(collector.done, total, "recordings")
    for _, answer in ctx.pool.imap(
        partial(_worker, sweep.setup, worker or partial(Transcriber, engine=engine), _about_file(ctx)), deals
    ):
        collector.take(answer)
        _remember(ctx, answer)
        ctx.progress(collector.done, total, "recordings")
        ctx.check()


def _worker(setup: Setup, make: MakeWorker, about: Path) -> Worker:
    """A worker that keeps to the size which earlier ones found to fit into memory, of this attempt or another."""
    return make(replace(setup, most=_read(about).get("most")))


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


def timings(sweep: Sweep, summary: Summary) -> dict[str, float]:
    """Seconds by stage, summed over workers."""
    return {"headers": sweep.headers_s, **{stage: ms / 1000 for stage, ms in summary.stages.items()}}


def failure(summary: Summary, *, done: str, fatal: bool) -> str | None:
    """Why the job ends as failed, if it does; ``done`` is what could not be done, ``fatal`` on_error: fail."""
    if not summary.failed:
        return None
    classes = ", ".join(f"{count} {name}" for name, count in summary.classes.most_common(5))
    if summary.failed == summary.files:
        return f"none of the {summary.files} recordings could be {done} ({classes})"
    if fatal:
        return f"{summary.failed} of {summary.files} recordings failed ({classes}) and on_error is 'fail'"
    return None
