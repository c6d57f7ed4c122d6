"""Latency and churn of a stream, counted from its partials."""

from __future__ import annotations

from collections import Counter

import pytest

from runner.asr.decode import Decoded
from runner.asr.streaming.measure import Measure, add, as_json, changed, percentiles
from runner.asr.streaming.partial import End, Final, Partial
from runner.asr.words import Word


def words(text: str, *, start: float) -> tuple[Word, ...]:
    """Half a second each."""
    return tuple(
        Word(word=word, start=start + 0.5 * i, end=start + 0.5 * (i + 1), confidence=1.0)
        for i, word in enumerate(text.split())
    )


def partial(heard: float, committed: tuple[Word, ...] = (), tail: str = "", *finals: Final) -> Partial:
    return Partial(heard=heard, committed=committed, tail=tail, finals=finals)


def final(committed: tuple[Word, ...], *, decided: float, by: End = "pause") -> Final:
    nothing = Decoded(text="", confidence=None)
    return Final(start=0.0, end=2.0, ended_by=by, decided=decided, committed=committed, final=nothing)


def counted(*partials: Partial) -> dict[str, object]:
    measure = Measure()
    for one in partials:
        measure.take(one)
    return measure.fields()


def test_latency_is_from_a_word_s_end_to_what_had_been_heard_then() -> None:
    one, two = words("a b", start=0.0), words("c", start=1.0)
    found = counted(partial(1.3, one), partial(2.0, two), partial(3.0, (), "", final((*one, *two), decided=2.7)))
    assert found["commit_latency_s"] == {"0.3": 1, "0.5": 1, "0.8": 1}
    assert found["final_latency_s"] == {"1.2": 1}


def test_a_word_is_shown_when_something_first_stands_in_its_place() -> None:
    found = counted(
        partial(0.4, (), "x"),  # before the end of its word, and another
        partial(1.0, (), "a b"),
        partial(1.5, words("a", start=0.0), "b"),  # since 0.4; its end is at 0.5
        partial(2.0, words("b c", start=0.5)),  # b since 1.0, its own end; c was never in a tail
    )
    assert found["shown_latency_s"] == {"-0.1": 1, "0": 1, "0.5": 1}
    assert found["commit_latency_s"] == {"0.5": 1, "1": 2}


def test_what_fell_away_is_not_since_when_a_later_word_is_shown() -> None:
    found = counted(partial(1.0, (), "gone gone"), partial(1.5), partial(3.0, words("a", start=2.0)))
    assert found["shown_latency_s"] == {"0.5": 1}


def test_nobody_waits_for_an_end_that_was_given() -> None:
    assert counted(partial(2.0, (), "", final(words("a", start=0), decided=1.0, by="close")))["final_latency_s"] == {}


@pytest.mark.parametrize(
    ("shown", "committed", "last", "expected"),
    [
        ("cach", "cachorro", True, False),
        ("cach", "cachorro", False, True),
        ("cachorro", "cachorro", False, False),
        ("casa", "cachorro", True, True),
        ("cachorros", "cachorro", True, True),
    ],
)
def test_only_the_last_word_of_a_tail_may_grow(shown: str, committed: str, last: bool, expected: bool) -> None:
    assert changed(shown, committed, last=last) == expected


def test_churn_counts_each_word_shown_by_what_came_in_its_place() -> None:
    found = counted(
        partial(1.0, (), "a be"),  # both right: the second one grows
        partial(1.5, words("a", start=0.0), "bem x"),  # bem is right, x is not
        partial(2.0, words("bem", start=0.5), "y"),
        partial(2.5, words("yz", start=1.0), "gone gone"),  # never come
        partial(3.0),
    )
    assert (found["partial_words"], found["partial_words_changed"]) == (7, 3)


def test_percentiles_are_values_that_occurred() -> None:
    histogram: Counter[float] = Counter()
    add(histogram, {"0.5": 50, "0.7": 45, "2": 5})
    assert percentiles(histogram) == {"p50": 0.5, "p95": 0.7, "max": 2.0}
    assert as_json(histogram) == {"0.5": 50, "0.7": 45, "2": 5}
    assert percentiles(Counter()) == {"p50": None, "p95": None, "max": None}
