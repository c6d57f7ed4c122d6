"""Forward passes of a step cost about the same, in each process."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from runner.llm.packing import balance


def test_attention_is_counted_by_document() -> None:
    one, many = np.array([4096]), np.full(8, 512)
    assert balance.cost(one, hidden=64) > 3 * balance.cost(many, hidden=64)  # as many tokens
    assert balance.cost(one, hidden=8192) < 1.1 * balance.cost(many, hidden=8192)  # the rest outweighs attention


@pytest.mark.parametrize("seed", range(20))
def test_every_row_is_in_one_pass_and_passes_are_even(seed: int) -> None:
    draw = random.Random(seed)
    count, most = draw.randint(1, 6), draw.randint(1, 4)
    costs = [draw.randint(1, 100) for _ in range(draw.randint(count, count * most))]
    made = balance.passes(costs, count=count, most=most)
    assert sorted(itertools.chain(*made)) == list(range(len(costs)))
    assert all(0 < len(rows) <= most for rows in made)
    totals = [sum(costs[row] for row in rows) for rows in made]
    if most >= len(costs):
        assert max(totals) - min(totals) <= max(costs)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_processes_do_equally_many_passes_of_like_cost(size: int) -> None:
    costs = np.random.default_rng(0).integers(1, 1000, 24).tolist()
    made = balance.shares(costs, size=size)
    dealt = [[one for one in share if one is not None] for share in made]
    assert sorted(itertools.chain(*dealt)) == list(range(24))
    assert {len(one) for one in dealt} == {24 // size}
    totals = [sum(costs[one] for one in share) for share in dealt]
    assert max(totals) - min(totals) <= 0.02 * sum(totals)
    for together in zip(*dealt, strict=True):  # of the same time: neighbours by cost
        places = sorted(sorted(costs, reverse=True).index(costs[one]) for one in together)
        assert places[-1] - places[0] < size


def test_who_has_nothing_left_is_told_so() -> None:
    assert balance.shares([5, 9, 7], size=2) == [[1, None], [2, 0]]
    assert balance.shares([5], size=3) == [[0], [None], [None]]
