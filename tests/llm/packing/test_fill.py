"""Rows hold what they may, each document once, and are filled as well as one can tell."""

from __future__ import annotations

import itertools
import random
import time

import numpy as np
import pytest
from datasets import Dataset

from runner.llm.packing.fill import rows


def filled(lengths: list[int], *, capacity: int, look_ahead: int = 10_000, most: int = 10_000) -> list[list[int]]:
    return list(rows(lengths, capacity=capacity, look_ahead=look_ahead, most_documents=most))


def chat(count: int, longest: int) -> list[int]:
    """Lengths as conversations have them: log-normal, a tenth above 1000 tokens."""
    drawn = np.exp(np.random.default_rng(0).normal(5.5, 1.0, count)).astype(int)
    return [int(one) for one in np.clip(drawn, 2, longest)]


def fewest(lengths: list[int], capacity: int) -> int:
    """Rows that are needed at least, by trying everything."""

    def fits(rest: list[int], spaces: list[int]) -> bool:
        if not rest:
            return True
        tried = set()
        for row, space in enumerate(spaces):
            if space >= rest[0] and space not in tried:
                tried.add(space)
                if fits(rest[1:], [*spaces[:row], space - rest[0], *spaces[row + 1 :]]):
                    return True
        return False

    ordered = sorted(lengths, reverse=True)
    return next(n for n in itertools.count(1) if fits(ordered, [capacity] * n))


def naive(lengths: list[int], capacity: int) -> list[int]:
    """Tokens of each row by best fit decreasing, looking at every row for every document."""
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        row = min((r for r, space in enumerate(spaces) if space >= length), key=lambda r: spaces[r], default=None)
        if row is None:
            row = len(spaces)
            spaces.append(capacity)
        spaces[row] -= length
    return sorted(capacity - space for space in spaces)


@pytest.mark.parametrize("seed", range(60))
def test_every_document_is_in_one_row_which_holds_what_it_may(seed: int) -> None:
    draw = random.Random(seed)
    capacity, look_ahead, most = draw.randint(1, 30), draw.randint(1, 25), draw.randint(1, 6)
    lengths = [draw.randint(1, capacity) for _ in range(draw.randint(0, 80))]
    made = filled(lengths, capacity=capacity, look_ahead=look_ahead, most=most)
    assert sorted(itertools.chain(*made)) == list(range(len(lengths)))
    assert all(sum(lengths[one] for one in row) <= capacity and 0 < len(row) <= most for row in made)
    assert made == filled(lengths, capacity=capacity, look_ahead=look_ahead, most=most)


@pytest.mark.parametrize("seed", range(40))
def test_a_window_is_filled_as_best_fit_decreasing_does_and_near_the_best_there_is(seed: int) -> None:
    draw = random.Random(seed)
    capacity = draw.randint(5, 20)
    lengths = [draw.randint(1, capacity) for _ in range(draw.randint(1, 11))]
    made = filled(lengths, capacity=capacity)
    assert sorted(sum(lengths[one] for one in row) for row in made) == naive(lengths, capacity)
    assert len(made) <= 11 / 9 * fewest(lengths, capacity) + 2 / 3


def test_looking_ahead_less_than_a_row_still_fills_rows() -> None:
    """The emptiest row is taken into the next window: without that, 3 documents a window would be a row of 30."""
    made = filled([10] * 100, capacity=100, look_ahead=3)
    assert [len(row) for row in made] == [10] * 10


def test_no_length_comes_before_another() -> None:
    lengths = chat(32768, 2048)
    longest = [max(lengths[one] for one in row) for row in filled(lengths, capacity=2048)]
    half = len(longest) // 2
    assert np.mean(longest[:half]) == pytest.approx(np.mean(longest[half:]), rel=0.05)


def test_a_row_of_short_documents_holds_all_lengths() -> None:
    """Sorted, the lengths of a row's documents would be 2 tokens apart where all of them are 14 apart."""
    lengths = np.random.default_rng(0).integers(20, 70, 4096).tolist()
    made = filled(lengths, capacity=1024)
    apart = np.mean([np.std([lengths[one] for one in row]) for row in made])
    assert apart > 0.9 * np.std(lengths)
    assert sum(lengths) / (len(made) * 1024) > 0.985


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [2048, 8192])
def test_rows_are_as_full_as_those_of_trl(capacity: int) -> None:
    from trl import data_utils  # 7 s of a core to import

    lengths = chat(6000, capacity)
    data = Dataset.from_dict({"input_ids": [[0] * length for length in lengths]})
    theirs = len(data_utils.pack_dataset(data, capacity, strategy="bfd"))  # in its own windows, of 1000
    whole = len(data_utils.pack_dataset(data, capacity, strategy="bfd", map_kwargs={"batch_size": len(lengths)}))
    ours = len(filled(lengths, capacity=capacity, look_ahead=4096))
    assert ours <= 1.01 * whole
    assert ours <= theirs
    assert sum(lengths) / (ours * capacity) > 0.99


def test_a_hundred_thousand_documents_are_planned_in_a_second() -> None:
    lengths = chat(100_000, 2048)
    started = time.process_time()
    filled(lengths, capacity=2048, look_ahead=4096)
    assert time.process_time() - started < 2.0  # 0.25 s on an idle core
