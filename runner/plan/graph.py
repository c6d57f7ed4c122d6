"""The order of steps."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence


class CycleError(Exception):
    """Steps that need each other; ``loop`` names them, the first one again at the end."""

    def __init__(self, loop: Sequence[str]) -> None:
        super().__init__(" -> ".join(loop))
        self.loop = tuple(loop)


def order(after: Mapping[str, Sequence[str]]) -> list[str]:
    """Names sorted so that each comes behind those it needs; among equals the given order stays.

    Raises CycleError.
    """
    sorter = graphlib.TopologicalSorter(after)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise CycleError(error.args[1][::-1]) from None
    given = {name: place for place, name in enumerate(after)}
    found: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=given.__getitem__)
        found += ready
        sorter.done(*ready)
    return found
