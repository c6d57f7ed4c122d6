"""The interval is that of drawing utterances with replacement, computed from counts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from runner.asr import bootstrap
from runner.asr.bootstrap import interval


def test_same_as_drawing_utterances() -> None:
    random = np.random.default_rng(7)
    lengths = random.integers(1, 20, size=200)
    errors = random.binomial(lengths, 0.2)
    rates = []
    for _ in range(2000):
        drawn = random.integers(200, size=200)
        rates.append(errors[drawn].sum() / lengths[drawn].sum())
    found = interval(Counter(zip(errors.tolist(), lengths.tolist(), strict=True)))
    assert found == pytest.approx(tuple(np.quantile(rates, [0.025, 0.975])), abs=0.004)


def test_same_every_time_in_any_order() -> None:
    pairs = [(1, 5), (0, 3), (2, 4), (0, 3), (7, 9)]
    assert interval(Counter(pairs)) == interval(Counter(reversed(pairs))) == interval(Counter(pairs))


def test_holds_the_rate_and_narrows_with_more_utterances() -> None:
    few, many = Counter({(0, 10): 6, (3, 10): 4}), Counter({(0, 10): 600, (3, 10): 400})
    low, high = interval(few) or (0, 0)
    assert low < 0.12 < high
    narrow = interval(many) or (0, 0)
    assert narrow[0] < 0.12 < narrow[1]
    assert narrow[1] - narrow[0] < (high - low) / 5


def test_no_interval_where_nothing_can_be_told() -> None:
    assert interval({}) is None
    assert interval({(1, 4): 1}) is None
    assert interval({(1, 0): 3}) is None


def test_no_errors() -> None:
    assert interval({(0, 4): 10}) == (0.0, 0.0)


def test_resamples_without_references_are_left_out() -> None:
    low, high = interval({(2, 0): 1, (1, 4): 1}) or (0, 0)
    assert (low, high) == (0.25, 0.75)


def test_blocks_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = Counter({(errors, 20 + errors): 3 for errors in range(20)})
    whole = interval(pairs)
    monkeypatch.setattr(bootstrap, "CELLS", 70)
    assert interval(pairs) == whole
