"""Jobs that do what a test needs and nothing else; they stand in for the job of a kind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from runner import ranks
from runner.context import Context, LedgerLine, Result
from runner.schema.errors import JobError

Job = Callable[[Any, Context], Result]


@dataclass(frozen=True)
class Double:
    """Twice the number; one number may kill the process, a few times or for ever."""

    killer: int = -1
    marks: str = ""  # folder that counts the kills
    kills: int = 0

    def __call__(self, item: int) -> int:
        if item == self.killer and len(list(Path(self.marks).iterdir())) < self.kills:
            Path(self.marks, f"{time.time_ns()}").touch()
            os._exit(9)
        return 2 * item


def write(spec: Any, ctx: Context) -> Result:
    """One file with the doubled numbers, in order; the same bytes for any number of workers."""
    found: dict[int, int] = {}
    for position, value in ctx.pool.imap(Double, range(10)):
        found[position] = value
        ctx.check()
        ctx.progress(len(found), 10, "numbers")
    (ctx.out / "numbers.txt").write_text("".join(f"{found[i]}\n" for i in sorted(found)))
    (ctx.records / "timing.txt").write_text(f"{time.time()}\n")
    print("printed by the job")
    ctx.log("told by the job")
    ctx.metric("sum", sum(found.values()))
    line = LedgerLine(what="doubling", applied=True, why="it is a test")
    return Result(metrics={"sum": sum(found.values()), "wer": 0.25}, ledger=(line,), timings={"all": 0.1})


def data_invalid(spec: Any, ctx: Context) -> Result:
    """Fails in a way that no retry changes."""
    raise JobError("clip 7 holds no sound", failure="DataInvalid")


def memory_once(spec: Any, ctx: Context) -> Result:
    """Runs out of memory in the first attempt, and goes on from its checkpoint in the second."""
    mark = ctx.checkpoints / "first"
    if not mark.exists():
        mark.touch()
        raise MemoryError("too large a batch")
    return write(spec, ctx)


def sleep(spec: Any, ctx: Context) -> Result:
    """Works for ever, and asks between items whether it should."""
    (ctx.checkpoints / f"attempt-{time.time_ns()}").touch()
    for i in range(100_000):
        ctx.check()
        ctx.progress(i, 100_000, "naps")
        time.sleep(0.01)
    return Result(metrics={})


def deaf(spec: Any, ctx: Context) -> Result:
    """Sleeps for ever and asks nothing."""
    ctx.progress(0, 1, "naps")
    time.sleep(1000)
    return Result(metrics={})


def resumable(spec: Any, ctx: Context) -> Result:
    """Sleeps in its first attempt; writes in the second."""
    mark = ctx.checkpoints / "first"
    if not mark.exists():
        mark.touch()
        return sleep(spec, ctx)
    return write(spec, ctx)


def touches_its_input(spec: Any, ctx: Context) -> Result:
    """Changes an input file while it runs."""
    clip = ctx.folder / ctx.inputs["data.audio"].files[0]
    clip.write_bytes(clip.read_bytes() + b"x")
    return write(spec, ctx)


def says_it_failed(spec: Any, ctx: Context) -> Result:
    """Keeps its results and fails."""
    write(spec, ctx)
    return Result(metrics={"wer": 0.25}, failure="3 of 10 recordings failed")


def goes_on_from_done(spec: Any, ctx: Context) -> Result:
    """Needs the checkpoint of an earlier attempt."""
    assert (ctx.checkpoints / "done").exists(), "the checkpoints are gone"
    return write(spec, ctx)


def kills_a_worker_once(spec: Any, ctx: Context) -> Result:
    """One item kills the process of its worker the first time."""
    return _with_killer(ctx, kills=1)


def kills_every_worker(spec: Any, ctx: Context) -> Result:
    """One item kills each process that takes it."""
    return _with_killer(ctx, kills=100)


def _with_killer(ctx: Context, *, kills: int) -> Result:
    marks = ctx.records / "kills"
    marks.mkdir()
    done = dict(ctx.pool.imap(partial(Double, killer=3, marks=str(marks), kills=kills), range(10)))
    (ctx.out / "numbers.txt").write_text("".join(f"{done[i]}\n" for i in sorted(done)))
    return Result(metrics={"deaths": len(list(marks.iterdir()))})


def pids(spec: Any, ctx: Context) -> Result:
    """Which processes worked, and what they saw of threads and GPUs."""
    seen = dict(ctx.pool.imap(_Who, range(20)))
    lines = sorted({tuple(v) for v in seen.values()})
    (ctx.out / "numbers.txt").write_text("x")
    return Result(metrics={"processes": len({line[0] for line in lines}), "seen": [list(line[1:]) for line in lines]})


class _Who:
    def __call__(self, item: int) -> list[Any]:
        print("printed by a worker")
        time.sleep(0.05)
        return [os.getpid(), os.environ.get("OMP_NUM_THREADS"), os.environ.get("CUDA_VISIBLE_DEVICES")]


def dies_once(spec: Any, ctx: Context) -> Result:
    """The process of the first attempt is killed, as by the kernel."""
    mark = ctx.checkpoints / "first"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return write(spec, ctx)


class _Sleeper:
    def __call__(self, item: int) -> int:
        time.sleep(0.2 if item < 2 else 1000)
        return item


def sleep_in_workers(spec: Any, ctx: Context) -> Result:
    """Its workers sleep for ever."""
    for done, _ in enumerate(ctx.pool.imap(_Sleeper, range(10))):
        ctx.progress(done + 1, 10, "naps")
    return Result(metrics={})


def meets_another(spec: Any, ctx: Context) -> Result:
    """Waits until another run is at work beside it."""
    deadline = time.monotonic() + 60
    (ctx.checkpoints / "here").touch()
    while len(list(ctx.checkpoints.parents[1].glob("*/checkpoints/here"))) < 2:
        ctx.check()
        assert time.monotonic() < deadline, "nobody came"
        time.sleep(0.05)
    return write(spec, ctx)


def deaf_with_child(spec: Any, ctx: Context) -> Result:
    """Like ``deaf``, with a child process in a session of its own."""
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    return deaf(spec, ctx)


def write_when_told(spec: Any, ctx: Context) -> Result:
    """Waits for a file `go` beside the spec."""
    ctx.progress(0, 1, "naps")
    deadline = time.monotonic() + 120
    while not (ctx.folder / "go").exists():
        assert time.monotonic() < deadline, "nobody told"
        time.sleep(0.05)
    return write(spec, ctx)


def slow_write(spec: Any, ctx: Context) -> Result:
    """Takes two seconds."""
    ctx.progress(0, 1, "naps")
    time.sleep(2)
    return write(spec, ctx)


def team(spec: Any, ctx: Context) -> Result:
    """Every process tells who it is, and they add up their numbers."""
    found = ctx.team.run(_met, ctx)
    (ctx.out / "numbers.txt").write_text(f"{found['sum']}")
    return Result(metrics=found)


def _met(ctx: Context) -> dict[str, Any]:
    from torch import distributed

    number = ranks.rank()
    ctx.log(f"told by process {number}")
    ctx.progress(1, 1, "meetings")
    ctx.metric("rank", number)
    print(f"printed by process {number}", flush=True)
    names = ("LOCAL_RANK", "WORLD_SIZE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    backend = str(distributed.get_backend()) if distributed.is_initialized() else ""
    me = {"pid": os.getpid(), "backend": backend, "listens": listening(), "ctx": [ctx.team.size, ctx.pool.workers]}
    every = ranks.of_all(me | {"environment": [os.environ.get(name) for name in names]})
    ranks.meet()
    first = ranks.from_first(lambda: f"from {number}")
    return {"sum": sum(ranks.of_all(number + 1)), "every": every, "first": first, "here": os.getpid()}


def team_fails(spec: Any, ctx: Context) -> Result:
    """The second process finds something wrong; the first only notices that it is gone."""
    ctx.team.run(_fails, ctx)
    return Result(metrics={})


def _fails(ctx: Context) -> None:
    if ranks.rank() == 1:
        raise JobError("the loss became nan", failure="NaN")
    ranks.meet()


def team_loses_one_once(spec: Any, ctx: Context) -> Result:
    """The second process of the first attempt is killed, as by the kernel."""
    ctx.team.run(_loses, ctx)
    return write(spec, ctx)


def _loses(ctx: Context) -> None:
    mark = ctx.checkpoints / "first"
    if ranks.rank() == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.meet()


def team_sleeps(spec: Any, ctx: Context) -> Result:
    """Its processes meet for ever, and ask whether they should."""
    ctx.team.run(_sleeps, ctx)
    return Result(metrics={})


def _sleeps(ctx: Context) -> None:
    (ctx.checkpoints / f"pid-{os.getpid()}").touch()
    for i in range(100_000):
        ctx.progress(i, 100_000, "naps")
        ctx.check()
        ranks.meet()
        time.sleep(0.01)


def team_is_deaf(spec: Any, ctx: Context) -> Result:
    """Its processes sleep for ever and ask nothing."""
    ctx.team.run(_deaf, ctx)
    return Result(metrics={})


def _deaf(ctx: Context) -> None:
    (ctx.checkpoints / f"pid-{os.getpid()}").touch()
    ctx.progress(0, 1, "naps")
    time.sleep(1000)


def listening() -> list[str]:
    """Where this process listens, as /proc/net/tcp has it: address:port in hexadecimal."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    targets = [str(link.readlink()) for link in links if link.exists() or link.is_symlink()]
    inodes = {target[8:-1] for target in targets if target.startswith("socket:")}
    tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    return [row[1] for row in (line.split() for line in tables.splitlines()) if row[3] == "0A" and row[9] in inodes]
