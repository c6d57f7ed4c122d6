"""The batch plan: every window once, sorted, little padding, the same whoever asks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.asr import batches, windows
from runner.asr.batches import Size
from runner.asr.header import Header
from runner.asr.layout import DEAL_BATCHES, Layout
from runner.asr.recordings import Clip, Recording

RATE = 16_000
LENGTHS = st.lists(st.integers(400, 320_000), min_size=0, max_size=200)
SIZES = st.builds(
    lambda seconds, most: Size(samples=seconds * RATE, windows=most), st.integers(1, 100), st.integers(1, 64)
)


def planned(lengths: list[int], size: Size) -> batches.Plan:
    return batches.plan(np.array(lengths, dtype=np.int64), size)


@given(lengths=LENGTHS, size=SIZES)
@settings(max_examples=100, deadline=None)
def test_every_window_is_in_one_batch_and_batches_keep_their_size(lengths: list[int], size: Size) -> None:
    made = planned(lengths, size)
    found = [window for batch in made for window in batch.tolist()]
    assert sorted(found) == list(range(len(lengths)))
    assert [lengths[i] for i in found] == sorted(lengths, reverse=True)
    padded = 0
    for batch in made:
        members = [lengths[i] for i in batch]
        assert 1 <= len(members) <= size.windows
        assert len(members) == 1 or max(members) * len(members) <= size.samples
        assert sum(members) >= (1 - batches.MAX_PADDING) * max(members) * len(members)
        padded += max(members) * len(members)
    assert (made.useful, made.padded) == (sum(lengths), padded)
    assert 0 <= made.padding <= batches.MAX_PADDING


@given(lengths=LENGTHS, size=SIZES)
@settings(max_examples=50, deadline=None)
def test_the_same_lengths_give_the_same_batches(lengths: list[int], size: Size) -> None:
    first, again = planned(lengths, size), planned(lengths, size)
    assert first.order.tolist() == again.order.tolist()
    assert first.bounds.tolist() == again.bounds.tolist()


@given(lengths=LENGTHS, size=SIZES, seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_the_order_of_input_changes_no_batch_s_lengths(lengths: list[int], size: Size, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(np.array(lengths, dtype=np.int64)).tolist()
    shapes = [[sorted(given_[i] for i in batch) for batch in planned(given_, size)] for given_ in (lengths, shuffled)]
    assert shapes[0] == shapes[1]


def test_equal_windows_keep_the_order_of_input() -> None:
    made = planned([500, 900, 500, 900, 500], Size(samples=10_000, windows=64))
    assert made.order.tolist() == [1, 3, 0, 2, 4]


def test_a_window_longer_than_a_batch_goes_alone() -> None:
    made = planned([100_000, 400, 400], Size(samples=16_000, windows=64))
    assert [batch.tolist() for batch in made] == [[0], [1, 2]]


def test_speech_like_lengths_are_hardly_padded() -> None:
    lengths = np.random.default_rng(0).lognormal(np.log(5 * RATE), 0.5, 2000).astype(int).clip(RATE, 20 * RATE)
    made = planned(lengths.tolist(), Size(samples=40 * RATE, windows=64))
    assert made.padding < 0.01
    assert len(made) < 2000 / 5


def recording(samples: int) -> Recording:
    header = Header(frames=max(1, samples), rate=RATE, channels=1, reader="soundfile", slack_s=0.1)
    clip = Clip(path="/a.wav", shown="a.wav")
    return Recording(clip=clip, channel=None, named=False, header=header, first=0, samples=samples)


@pytest.fixture(scope="module")
def layout() -> Layout:
    random = np.random.default_rng(3)
    samples = [0, *random.integers(400, 60 * RATE, 40).tolist(), 0]
    cut = windows.cut(length_s=5, context_s=1, rate=RATE, stride=320, receptive=400)
    return Layout([recording(count) for count in samples], cut)


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_deals_hold_every_window_once_in_the_plan_s_batches(layout: Layout, workers: int) -> None:
    made = batches.plan(layout.lengths, Size(samples=20 * RATE, windows=8))
    deals = list(layout.deals(made, workers=workers, done=lambda item, window: False))
    assert all(1 <= len(deal) <= DEAL_BATCHES for deal in deals)
    dealt = [[(piece.item, piece.window) for piece in batch] for deal in deals for batch in deal]
    planned_ = [[(int(layout.items[k]), int(layout.windows[k])) for k in batch] for batch in made]
    assert dealt == planned_
    flat = [pair for batch in dealt for pair in batch]
    assert len(set(flat)) == len(flat) == len(layout.items)
    for item in {item for item, _ in flat}:
        count = layout.cut.count(layout._recordings[item].samples)
        assert sorted(window for i, window in flat if i == item) == list(range(count))


def test_deals_are_no_larger_than_asked_for(layout: Layout) -> None:
    made = batches.plan(layout.lengths, Size(samples=20 * RATE, windows=8))
    deals = list(layout.deals(made, workers=1, done=lambda item, window: False, most=2))
    assert {len(deal) for deal in deals[:-1]} == {2}
    assert sum(map(len, deals)) == len(made)


def test_deals_leave_out_only_batches_that_are_done_altogether(layout: Layout) -> None:
    made = batches.plan(layout.lengths, Size(samples=20 * RATE, windows=8))
    every = [batch for deal in layout.deals(made, workers=1, done=lambda item, window: False) for batch in deal]
    whole = {(piece.item, piece.window) for batch in every[::2] for piece in batch}
    part = {(batch[0].item, batch[0].window) for batch in every[1::2] if len(batch) > 1}
    left = [b for deal in layout.deals(made, workers=1, done=lambda i, w: (i, w) in whole | part) for b in deal]
    assert left == every[1::2]


def test_longest_first(layout: Layout) -> None:
    made = batches.plan(layout.lengths, Size(samples=20 * RATE, windows=8))
    longest = [int(layout.lengths[batch[0]]) for batch in made]
    assert all(a >= b for a, b in pairwise(longest))
