"""Teams: what their processes are given, and what becomes of the answers that they leave. The team of one is here."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.context import Context
from runner.execution import failures
from runner.execution.share import Share
from runner.schema.errors import FailureClass, JobError

OWN = ("pool", "team", "progress", "log", "metric", "check")  # fields of a context that every process makes anew
SEAT, ADDRESS = "seat", "address"  # files of the room
ROOM = "team-"
RESERVED = 1 << 14  # bytes for what went wrong in a process
# Where the connection to another process broke: gloo raises a plain RuntimeError with the path of its source
BROKEN = ("/gloo/", "ncclremoteerror", "connection closed by", "connection reset by", "broken pipe")


class SoloTeam:
    """The team of one: this process."""

    size = 1

    def run(self, work: Callable[[Context], Any], ctx: Context) -> Any:
        """Call ``work`` here."""
        return work(ctx)


@dataclass(frozen=True, kw_only=True)
class Seat:
    """What each process of a team is given; picklable."""

    work: Callable[[Context], Any]
    given: dict[str, Any]  # fields of its context
    folder: Path  # of the run
    room: Path  # of this call: the address where the processes meet, and what each of them leaves
    share: Share
    timeout_s: float

    def leave(self, rank: int, answer: Any) -> None:
        """Put down what became of process ``rank``."""
        self.put(str(rank), pickle.dumps(answer))

    def put(self, name: str, content: bytes) -> None:
        """Write a file of the room; it is seen whole or not at all."""
        fresh = self.room / f"{name}.new"
        with fresh.open("r+b" if fresh.exists() else "wb") as file:
            file.write(content)
            file.truncate()
        fresh.rename(self.room / name)

    def reserve(self, rank: int) -> None:
        """Take the space that the answer of process ``rank`` needs: on a disk that is full by then it says so."""
        (self.room / f"{rank}.new").write_bytes(bytes(RESERVED))


@dataclass(frozen=True, kw_only=True)
class Failed:
    """What went wrong in a process: classes of exceptions may not exist, or not unpickle, on the other side."""

    failure: FailureClass
    message: str
    at: float  # time.time()
    echo: bool  # it only noticed that another one was gone


@contextlib.contextmanager
def seats(work: Callable[[Context], Any], ctx: Context, *, share: Share, timeout_s: float) -> Iterator[Seat]:
    """The seat of a new team, whose room is gone at the end."""
    folder = ctx.checkpoints.parent
    for old in folder.glob(f"{ROOM}*"):  # of an attempt that was killed
        shutil.rmtree(old, ignore_errors=True)
    room = Path(tempfile.mkdtemp(prefix=ROOM, dir=folder))
    given = {name: value for name, value in vars(ctx).items() if name not in OWN}
    seat = Seat(work=work, given=given, folder=folder, room=room, share=share, timeout_s=timeout_s)
    try:
        for rank in range(share.workers):  # here, where a full disk has its own class: a process could not say it
            seat.reserve(rank)
        yield seat
    finally:
        shutil.rmtree(room, ignore_errors=True)


def failed(error: BaseException) -> Failed:
    """What ``error`` says of its process."""
    text = str(error).lower()
    echo = not isinstance(error, JobError) and any(mark in text for mark in BROKEN)
    return Failed(failure=failures.classify(error), message=failures.describe(error), at=time.time(), echo=echo)


def answer(seat: Seat, *, died: str) -> Any:
    """What the first process returned. Raises JobError: of the first failure, or `Preempted` when a process is gone.

    ``died`` says what is known of a process that ended by itself, without leaving anything.
    """
    left = [_left(seat.room / str(rank)) for rank in range(seat.share.workers)]
    wrong = sorted((one for one in left if isinstance(one, Failed)), key=lambda one: (one.echo, one.at))
    if wrong and not wrong[0].echo:
        raise JobError(wrong[0].message, failure=wrong[0].failure)
    if wrong or died or any(one is _Nothing for one in left):
        why = died or (wrong[0].message if wrong else "it left no answer, see its log")
        failure: FailureClass = "OutOfMemoryHost" if "memory" in why.lower() else "Preempted"
        raise JobError(f"a process of the team is gone: {why}", failure=failure)
    return left[0]


class _Nothing:
    """Stands for an answer that was not left."""


def _left(path: Path) -> Any:
    return pickle.loads(path.read_bytes()) if path.exists() else _Nothing
