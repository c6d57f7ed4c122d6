"""Weights are chosen in a fixed order, by word errors, from a grid and then around its best point."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from runner.asr.language.tune import ALPHAS, BETAS, Errors, Point, Tuned, around, best, tune


def bowl(points: Sequence[Point]) -> dict[Point, Errors]:
    """Fewest errors at 0.625 and 2.5."""
    return {
        (a, b): Errors(words=round(100 * ((a - 0.625) ** 2 + 0.1 * (b - 2.5) ** 2)), characters=1) for a, b in points
    }


def test_the_grid_is_refined_around_its_best_point() -> None:
    asked: list[list[Point]] = []

    def evaluate(points: Sequence[Point]) -> dict[Point, Errors]:
        asked.append(list(points))
        return bowl(points)

    tried = tune(evaluate, given=(0.3, 1.5))
    assert asked[0][0] == (0.3, 1.5)
    assert len(asked[0]) == 1 + len(ALPHAS) * len(BETAS)
    assert best(bowl(asked[0])) == (0.5, 2.0)
    assert best(tried) == (0.625, 2.5)
    assert len(set(asked[0] + asked[1])) == len(asked[0] + asked[1]), "no point is tried twice"


def test_ties_go_to_fewer_characters_then_to_smaller_weights() -> None:
    even = Errors(words=3, characters=9)
    assert best({(1.0, 2.0): even, (0.5, 4.0): even, (0.5, 1.0): even}) == (0.5, 1.0)
    assert best({(0.5, 1.0): even, (2.0, 4.0): Errors(words=3, characters=8)}) == (2.0, 4.0)
    assert best({(2.0, 4.0): Errors(words=3, characters=0), (0.5, 1.0): Errors(words=2, characters=99)}) == (0.5, 1.0)


@pytest.mark.parametrize("point", [(0.0, 0.0), (10.0, 20.0), (10.0, -20.0), (0.5, 1.5)])
def test_points_stay_within_the_bounds_of_the_spec(point: Point) -> None:
    found = around(point)
    assert point in found
    assert all(0 <= alpha <= 10 and -20 <= beta <= 20 for alpha, beta in found)


def test_the_table_is_ranked_and_ends_with_greedy() -> None:
    tried = bowl([(0.5, 2.0), (2.0, 0.0), (0.5, 1.0)])
    tuned = Tuned(
        alpha=0.5,
        beta=2.0,
        greedy=Errors(words=50, characters=80),
        tried=tried,
        recordings=4,
        references=200,
        audio_s=12.0,
    )
    rows = tuned.table().rows
    assert [row[:2] for row in rows] == [(0.5, 2.0), (0.5, 1.0), (2.0, 0.0), (None, None)]
    assert rows[-1][2:] == (0.25, 50)
