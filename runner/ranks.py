"""What the processes of a team (``Context.team``) tell each other. In a process that has no team all of it is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import distributed

T = TypeVar("T")


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
    box: list[Any] = [make() if rank() == 0 else None]
    distributed.broadcast_object_list(box)
    made: T = box[0]
    return made


def of_all(value: T) -> list[T]:
    """The ``value`` of each process in the order of their ranks, in every one; picklable."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    distributed.all_gather_object(values, value)
    return values


def meet() -> None:
    """Wait until every process is here."""
    if size() > 1:
        distributed.barrier()
