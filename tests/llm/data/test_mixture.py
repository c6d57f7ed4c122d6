from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from runner.llm.data.mixture import Stream, epoch

SIZES, WEIGHTS = (10, 6, 7), (2.0, 0.5, 1.3)


def counted(epochs: int) -> Counter[tuple[int, int]]:
    rows = np.concatenate([epoch(SIZES, WEIGHTS, seed=1, epoch=one) for one in range(epochs)])
    return Counter((int(source), int(row)) for source, row in rows)


def test_weights_say_how_often_each_document_is_taken() -> None:
    first = counted(1)
    assert [first[0, row] for row in range(10)] == [2] * 10
    assert sum(first[1, row] for row in range(6)) == 3
    assert sum(first[2, row] for row in range(7)) in {9, 10}
    both = counted(2)
    assert [both[1, row] for row in range(6)] == [1] * 6


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 40])
def test_no_document_is_taken_more_often_than_others_of_its_corpus(epochs: int) -> None:
    found = counted(epochs)
    for source, (size, weight) in enumerate(zip(SIZES, WEIGHTS, strict=True)):
        times = [found[source, row] for row in range(size)]
        assert max(times) - min(times) <= 1
        assert abs(sum(times) - epochs * weight * size) <= 1


def test_the_order_is_the_seeds_alone_and_differs_between_epochs() -> None:
    one, two = (epoch((100,), (1.0,), seed=3, epoch=number) for number in (0, 1))
    assert np.array_equal(one, epoch((100,), (1.0,), seed=3, epoch=0))
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, epoch((100,), (1.0,), seed=4, epoch=0))
    assert sorted(one[:, 1]) == sorted(two[:, 1]) == list(range(100))


class Corpus:
    """Numbered rows, some of which are broken, and what it was asked for."""

    def __init__(self, size: int, broken: tuple[int, ...] = ()) -> None:
        self.rows = [row for row in range(size) if row not in broken]
        self.begun: list[int] = []

    def __call__(self, begin: int) -> Iterator[tuple[int, str]]:
        self.begun.append(begin)
        return ((row, f"row {row}") for row in self.rows if row >= begin)


def test_a_stream_takes_each_corpus_as_often_as_its_share() -> None:
    sources = [Corpus(1000), Corpus(30), Corpus(50, broken=(0, 7, 49))]
    stream = Stream(sources, (10.0, 0.5, 2.0), seed=0, block=50)
    taken = Counter(source for source, _, _ in itertools.islice(stream, 2500))
    assert taken == {0: 2000, 1: 100, 2: 400}


def test_a_stream_shuffles_within_its_blocks_and_loses_nothing() -> None:
    stream = Stream([Corpus(100)], (1.0,), seed=5, block=20)
    rows = [row for _, row, _ in itertools.islice(stream, 200)]
    assert rows[:20] != list(range(20))
    assert sorted(rows[:20]) == list(range(20))
    assert sorted(rows[:100]) == sorted(rows[100:]) == list(range(100))
    assert rows[:100] != rows[100:]


@pytest.mark.parametrize("given", [0, 1, 19, 20, 21, 133, 400])
def test_a_stream_goes_on_from_its_state(given: int) -> None:
    def made(state: object = None) -> Stream[str]:
        sources = [Corpus(37, broken=(3, 36)), Corpus(11)]
        return Stream(sources, (2.0, 1.0), seed=9, block=20, state=state)  # type: ignore[arg-type]

    whole = made()
    before = list(itertools.islice(whole, given))
    again = made(json.loads(json.dumps(whole.state)))
    after = list(itertools.islice(again, 100))
    assert after == list(itertools.islice(whole, 100))
    assert before + after == list(itertools.islice(made(), given + 100))
    assert again.state == whole.state


def test_a_state_is_small_and_reading_begins_at_its_block() -> None:
    stream = Stream([Corpus(10_000)], (1.0,), seed=0, block=100)
    list(itertools.islice(stream, 5_050))
    assert len(json.dumps(stream.state)) < 200
    source = Corpus(10_000)
    Stream([source], (1.0,), seed=0, block=100, state=stream.state)
    assert source.begun == [5_000]
    list(itertools.islice(stream, 50))
    Stream([source], (1.0,), seed=0, block=100, state=stream.state)
    assert source.begun == [5_000, 5_100]
