"""Weights of the language model, chosen by word errors: a grid, then around its best point, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runner.context import Table

Point = tuple[float, float]  # alpha, beta

ALPHAS = (0.25, 0.5, 1.0, 1.5, 2.0)
BETAS = (0.0, 1.0, 2.0, 4.0)
STEPS = (-1, 0, 1)  # around the best point: a quarter of alpha, half a unit of beta
MOST_ALPHA, LEAST_BETA = 10.0, -20.0  # bounds of the spec's fields


@dataclass(frozen=True, kw_only=True, order=True)
class Errors:
    """Of some recordings. Ordered as they are compared: words first."""

    words: int
    characters: int


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What was tried, and the best of it."""

    alpha: float
    beta: float
    greedy: Errors  # without a language model
    tried: Mapping[Point, Errors]
    recordings: int
    references: int  # words of their references
    audio_s: float

    def table(self) -> Table:
        """For the report, best first."""
        ranked = sorted(self.tried, key=lambda point: (self.tried[point], point))
        rows = [(*point, self.tried[point].words / self.references, self.tried[point].words) for point in ranked]
        plain = (None, None, self.greedy.words / self.references, self.greedy.words)
        return Table(
            title="Tuning",
            columns=("alpha", "beta", "error rate", "wrong words"),
            rows=[*rows, plain],
            note=f"{self.references} words of {self.recordings} validation recordings, {self.audio_s:.0f} s; the last "
            "row is greedy decoding, without a language model",
        )


def tune(evaluate: Callable[[Sequence[Point]], Mapping[Point, Errors]], *, given: Point) -> dict[Point, Errors]:
    """Every point tried: the grid with the spec's own, then those around the best of them."""
    grid = list(dict.fromkeys([given, *((alpha, beta) for alpha in ALPHAS for beta in BETAS)]))
    tried = dict(evaluate(grid))
    return {**tried, **evaluate([point for point in around(best(tried)) if point not in tried])}


def best(tried: Mapping[Point, Errors]) -> Point:
    """The point with the fewest wrong words, then characters, then the smallest weights."""
    return min(tried, key=lambda point: (tried[point], point))


def around(point: Point) -> list[Point]:
    """The points next to one."""
    alpha, beta = point
    found = [(round(alpha * (1 + step / 4), 4), round(beta + other / 2, 4)) for step in STEPS for other in STEPS]
    return [(min(a, MOST_ALPHA), max(LEAST_BETA, min(b, -LEAST_BETA))) for a, b in found]
