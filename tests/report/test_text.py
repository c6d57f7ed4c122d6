from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.report.plot import axis
from runner.report.text import duration, moment, telling, value


@pytest.mark.parametrize(
    "thing, text",
    [
        (None, "–"),
        (True, "yes"),
        (0, "0"),
        (9999, "9999"),
        (1234567, "1,234,567"),
        (0.07571234, "0.07571"),
        (123456.7, "123,457"),
        ({"hits": 3, "rate": 0.5}, "hits 3, rate 0.5"),
        ([1, "b"], "1, b"),
        ("x", "x"),
    ],
)
def test_values(thing: Any, text: str) -> None:
    assert value(thing) == text


def test_durations() -> None:
    assert [duration(s) for s in (0.0042, 3.14159, 59.99, 125, 12000, None)] == [
        *("4.2 ms", "3.14 s", "60 s", "2 min 5 s", "3 h 20 min", "–"),
    ]


def test_what_is_measured_stands_before_what_is_counted() -> None:
    assert telling({"files": 3, "wer": 0.25, "exact": True, "picked": "int8", "cer": 0.5}) == ["wer", "cer", "files"]


def test_moments() -> None:
    assert moment("2026-11-22T11:12:30+00:00") == "2026-11-22 11:12 UTC"
    assert moment("2026-11-22T11:12:30-03:00") == "2026-11-22 11:12 -0300"
    assert moment("yesterday") == "yesterday"


@given(st.lists(st.floats(-1e12, 1e12, allow_subnormal=False), min_size=1, max_size=20), st.booleans())
def test_an_axis_holds_its_values_with_few_ticks(values: list[float], zero: bool) -> None:
    low, high, ticks = axis(values, zero=zero)
    assert low < high
    slack = 1e-9 * max(1.0, abs(low), abs(high))
    assert low - slack <= min(values) and max(values) <= high + slack
    assert 2 <= len(ticks) <= 8
