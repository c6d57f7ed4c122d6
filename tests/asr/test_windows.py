"""Windows tile the timeline, and batches hold every window once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.asr.batches import MAX_PADDING, Size, plan
from runner.asr.windows import cut

RATE = 16000
# (stride, receptive): wav2vec2, the quickstart's model, wav2vec2-bert, parakeet
CLOCKS = [(320, 400), (320, 435), (320, 880), (1280, 2640)]


def frames_of(samples: int, stride: int, receptive: int) -> int:
    return (samples - receptive) // stride + 1


@settings(max_examples=300, deadline=None)
@given(
    clock=st.sampled_from(CLOCKS),
    samples=st.integers(1, 3_000_000),
    length_s=st.floats(1, 120),
    context_share=st.floats(0.001, 0.49),
)
def test_kept_frames_cover_each_frame_of_the_recording_exactly_once(
    clock: tuple[int, int], samples: int, length_s: float, context_share: float
) -> None:
    stride, receptive = clock
    how = cut(length_s=length_s, context_s=length_s * context_share, rate=RATE, stride=stride, receptive=receptive)
    kept: list[int] = []
    for index in range(how.count(samples)):
        window = how.window(samples, index)
        assert window.first % stride == 0
        assert 0 <= window.first < window.last <= samples
        assert window.last - window.first <= how.length
        before, there = window.first // stride, frames_of(window.last - window.first, stride, receptive)
        last = before + max(there, 0) if window.keep_to is None else window.keep_to
        assert window.keep_to is None or window.keep_to <= before + there, "a kept frame that the window does not have"
        assert window.keep_from >= before
        kept += range(window.keep_from, last)
    assert kept == list(range(max(0, frames_of(samples, stride, receptive))))


def test_windows_are_about_equally_long() -> None:
    how = cut(length_s=20, context_s=1, rate=RATE, stride=320, receptive=400)
    lengths = [how.window(21 * RATE, i) for i in range(how.count(21 * RATE))]
    assert [w.last - w.first for w in lengths] == [184_000, 184_000]  # 21 s + 2 s of context, in two


def test_a_short_recording_is_one_window_and_keeps_all() -> None:
    how = cut(length_s=20, context_s=1, rate=RATE, stride=320, receptive=400)
    window = how.window(123_457, 0)
    assert (window.first, window.last, window.keep_from, window.keep_to) == (0, 123_457, 0, None)


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(400, 320_000), min_size=1, max_size=300),
    samples=st.integers(16_000, 3_000_000),
    windows=st.integers(1, 64),
)
def test_a_plan_holds_each_window_once_within_the_limits(lengths: list[int], samples: int, windows: int) -> None:
    made = plan(np.array(lengths), Size(samples=samples, windows=windows))
    batches = [[lengths[k] for k in batch] for batch in made]
    assert sorted(k for batch in made for k in batch) == list(range(len(lengths)))
    assert made.useful == sum(lengths)
    assert made.padded == sum(max(batch) * len(batch) for batch in batches)
    assert 1 - made.useful / made.padded <= MAX_PADDING + 1e-9
    for batch in batches:
        assert len(batch) <= windows
        assert len(batch) == 1 or max(batch) * len(batch) <= samples


def test_a_packed_plan_fills_batches_whatever_the_lengths() -> None:
    made = plan(np.array([10, 1000, 300, 20, 700]), Size(samples=1000, windows=3, packed=True))
    assert [batch.tolist() for batch in made] == [[1], [4, 2], [3, 0]]
    assert made.padding == 0


def test_a_corpus_of_mixed_lengths_is_hardly_padded() -> None:
    lengths = np.random.default_rng(0).integers(16_000, 240_000, 10_000)
    made = plan(lengths, Size(samples=40 * RATE, windows=64))
    assert made.padding < 0.005
    assert len(made) < len(lengths) / 4


def test_no_windows_make_no_batches() -> None:
    assert list(plan(np.zeros(0, np.int64), Size(samples=1, windows=1))) == []


@pytest.mark.parametrize("stride, receptive", CLOCKS)
def test_the_context_always_covers_what_a_frame_sees(stride: int, receptive: int) -> None:
    how = cut(length_s=1, context_s=0.001, rate=RATE, stride=stride, receptive=receptive)
    assert how.context >= receptive
    assert how.length > 2 * how.context
