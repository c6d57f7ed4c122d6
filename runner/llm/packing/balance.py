"""The rows of a step shared evenly: into its forward passes, and those among the processes."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray


def cost(lengths: NDArray[np.int64], *, hidden: int) -> int:
    """What documents of these lengths cost in one row, in units of 2 x hidden operations a layer.

    Linear layers take about 24 hidden^2 operations a token (4 hidden^2 weights in attention, 8 in the MLP), and
    attention 2 hidden for each of the L / 2 tokens that one sees, twice: L (12 hidden + L).
    """
    return int((lengths * (12 * hidden + lengths)).sum())


def passes(costs: Sequence[int], *, count: int, most: int) -> list[list[int]]:
    """``count`` forward passes of at most ``most`` rows: the costliest first, to the pass that has the least so far.

    (Graham 1969, longest processing time: at most 4/3 of the best.) Rows are in order in each; none is empty where
    there are as many rows as passes.
    """
    assert len(costs) <= count * most, f"{len(costs)} rows do not fit into {count} passes of {most}"
    made: list[list[int]] = [[] for _ in range(count)]
    heap = [(0, one) for one in range(count)]
    for row in sorted(range(len(costs)), key=lambda one: -costs[one]):
        total, one = heappop(heap)
        made[one].append(row)
        if len(made[one]) < most:
            heappush(heap, (total + costs[row], one))
    return [sorted(rows) for rows in made]


def shares(costs: Sequence[int], *, size: int) -> list[list[int | None]]:
    """The passes of each of ``size`` processes, equally many: None where there is nothing left for one.

    Passes of about the same cost go at the same time, since processes that share weights wait for each other at each;
    of those, the costliest goes to the process that has done the least so far.
    """
    order = sorted(range(len(costs)), key=lambda one: -costs[one])
    made: list[list[int | None]] = [[] for _ in range(size)]
    heap = [(0, rank) for rank in range(size)]
    for first in range(0, len(order), size):
        together = order[first : first + size]
        by_done = [heappop(heap) for _ in range(size)]
        for place, (done, rank) in enumerate(by_done):
            one = together[place] if place < len(together) else None
            made[rank].append(one)
            by_done[place] = (done + (0 if one is None else costs[one]), rank)
        heap = by_done
        heapify(heap)
    return made
