"""What the processes of a team (``Context.team``) tell each other. In a process that has no team all of it is free.

Values go through files of a folder that only the team's user may enter, pickled; their sockets carry tensors alone.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import distributed

T = TypeVar("T")
_team: dict[str, Path] = {}
_calls = itertools.count()  # the same in every process: all of them make the same calls


def talk_in(room: Path) -> None:
    """Where the values of this process's team go; all of its processes see the folder."""
    _team["room"] = room


def rank() -> int:
    """Which process of the team this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """Processes in the team."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def from_first(make: Callable[[], T]) -> T:
    """What ``make`` gives in the first process, in every one; picklable. The others only wait."""
    if size() == 1:
        return make()
    made: T = _exchanged(make, tellers=1)[0]
    return made


def of_all(value: T) -> list[T]:
    """The ``value`` of each process in the order of their ranks, in every one; picklable."""
    return [value] if size() == 1 else _exchanged(lambda: value, tellers=size())


def meet() -> None:
    """Wait until every process is here."""
    if size() > 1:
        distributed.barrier()


def _exchanged(make: Callable[[], Any], *, tellers: int) -> list[Any]:
    call = next(_calls)
    files = [_team["room"] / f"said-{call}-{teller}" for teller in range(tellers)]
    if rank() < tellers:
        files[rank()].write_bytes(pickle.dumps(make()))
    meet()  # all is written, and what was said before has been read
    (_team["room"] / f"said-{call - 1}-{rank()}").unlink(missing_ok=True)
    return [pickle.loads(file.read_bytes()) for file in files]
