"""When a window's text hangs on rounding."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from runner.asr.doubt import doubtful


def rows(best: list[int], second: list[int], lead: list[float]) -> NDArray[np.float32]:
    """Log-probabilities [frames, 4] in which ``best`` leads ``second`` by ``lead``."""
    made = np.full((len(best), 4), -9.0, np.float32)
    for frame, (first, other, by) in enumerate(zip(best, second, lead, strict=True)):
        made[frame, other], made[frame, first] = -1.0, -1.0 + by
    return made


@pytest.mark.parametrize(
    ("best", "second", "lead", "in_doubt"),
    [
        ([0, 1, 1, 0], [1, 0, 0, 1], [5, 5, 5, 5], False),
        ([0, 1, 1, 0], [1, 0, 0, 1], [5, 0.01, 5, 5], False),  # the letter would come a frame later
        ([0, 1, 0, 0], [1, 0, 1, 1], [5, 0.01, 5, 5], True),  # the letter would be gone
        ([0, 1, 1, 0], [1, 0, 2, 1], [5, 5, 0.01, 5], True),  # another letter would follow
        ([1, 0, 1, 0], [0, 1, 0, 1], [5, 0.01, 5, 5], True),  # two letters would be one
        ([1, 0, 0, 1], [0, 1, 0, 0], [5, 0.01, 5, 5], False),  # still two
        ([0, 0, 0, 0], [1, 1, 1, 1], [5, 5, 5, 0.01], True),  # a letter would appear
        ([0, 1, 1, 0], [1, 0, 0, 1], [5, 0.02, 0.02, 5], True),  # both of a letter's frames: it would be gone
    ],
)
def test_doubt(best: list[int], second: list[int], lead: list[float], in_doubt: bool) -> None:
    assert doubtful(rows(best, second, lead), blank=0) is in_doubt


def test_a_third_symbol_counts_too() -> None:
    made = rows([0, 1, 1, 0], [1, 0, 0, 1], [5, 0.02, 5, 5])
    assert not doubtful(made, blank=0)
    made[1, 2] = made[1, 1] - 0.03
    assert doubtful(made, blank=0)


def test_the_margin_decides() -> None:
    close = rows([0, 1, 0], [1, 0, 1], [5, 0.05, 5])
    assert doubtful(close, blank=0)
    assert not doubtful(close, blank=0, margin=0.04)
