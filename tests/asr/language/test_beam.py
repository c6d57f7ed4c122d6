"""Beam search against the sum over every path, and alignment against the best of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from runner.asr.align.search import align
from runner.asr.decode import decode, greedy
from runner.asr.language import beam
from tests.asr.signals import ALPHABET, SYMBOLS, noise, spoken


def collapse(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)


def every_path(output: NDArray[np.float32], blank: int) -> tuple[dict[tuple[int, ...], float], ...]:
    """For each spelling the log of the summed and of the largest probability of its paths."""
    summed: dict[tuple[int, ...], float] = {}
    largest: dict[tuple[int, ...], float] = {}
    frames, vocab = output.shape
    for path in itertools.product(range(vocab), repeat=frames):
        spelling, score = collapse(path, blank), float(output[np.arange(frames), path].sum(dtype=np.float64))
        summed[spelling] = np.logaddexp(summed.get(spelling, -np.inf), score)
        largest[spelling] = max(largest.get(spelling, -np.inf), score)
    return summed, largest


def small(seed: int) -> tuple[NDArray[np.float32], int]:
    random = np.random.default_rng(seed)
    frames, vocab = int(random.integers(1, 7)), int(random.integers(2, 5))
    return noise(seed, frames=frames, vocab=vocab, scale=random.choice([0.5, 2, 5])), int(random.integers(vocab))


@pytest.mark.parametrize("seed", range(80))
def test_wide_beam_is_exact(seed: int) -> None:
    output, blank = small(seed)
    summed, _ = every_path(output, blank)
    symbols, score = beam.best_prefix(
        output.astype(np.float64), blank=blank, beam_size=10_000, floor=np.inf, gap=np.inf
    )
    assert score == pytest.approx(max(summed.values()), abs=1e-5)
    assert summed[tuple(symbols.tolist())] == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("seed", range(80))
def test_pruned_beam_is_no_worse_than_greedy(seed: int) -> None:
    output, blank = small(seed)
    summed, _ = every_path(output, blank)
    found = beam.search(output, blank=blank, beam_size=16)
    assert summed[tuple(found.ids.tolist())] >= summed[tuple(greedy(output, blank=blank).ids.tolist())] - 1e-3


def test_sum_of_paths_beats_the_best_path() -> None:
    output = np.log(np.array([[0.4, 0.6], [0.4, 0.6]], dtype=np.float32)).astype(np.float32)  # Graves 2006, figure 2
    assert greedy(output, blank=1).ids.tolist() == []
    assert beam.search(output, blank=1, beam_size=8).ids.tolist() == [0]


@pytest.mark.parametrize("seed", range(60))
def test_alignment_is_the_best_path(seed: int) -> None:
    output, blank = small(seed)
    _, largest = every_path(output, blank)
    for spelling, score in largest.items():
        path = align(output, np.array(spelling, dtype=np.intp), blank=blank)
        frames = np.full(len(output), blank)
        for symbol, first, last in zip(path.ids, path.first, path.last, strict=True):
            frames[first:last] = symbol
        assert collapse(tuple(frames.tolist()), blank) == spelling
        assert output[np.arange(len(output)), frames].sum(dtype=np.float64) == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize(("frames", "symbols"), [(2, [1, 1]), (1, [1, 2]), (0, [1])])
def test_too_few_frames_to_align(frames: int, symbols: list[int]) -> None:
    with pytest.raises(ValueError, match=f"need .* frames, got {frames}"):
        align(noise(0, frames=frames, vocab=4), np.array(symbols), blank=0)


@pytest.mark.parametrize("seed", range(10))
def test_beam_1_is_greedy(seed: int) -> None:
    output = noise(seed, frames=300, vocab=len(SYMBOLS), scale=1.0)
    letters = "".join({4: " "}.get(id_, ALPHABET.texts[id_]) for id_ in greedy(output, blank=0).ids.tolist())
    assert decode(output, alphabet=ALPHABET, frame_s=0.02, beam_size=1).text == " ".join(letters.split())


def test_sure_speech_has_the_words_and_times_of_greedy() -> None:
    output = spoken("_aa_b__|__l_l|_ç___" * 30, share=0.97)
    options = {"alphabet": ALPHABET, "frame_s": 0.02, "timestamps": "char"}
    assert decode(output, beam_size=20, **options) == decode(output, beam_size=1, **options)


def test_pieces_are_the_busy_frames() -> None:
    output = spoken("___ab__|_", share=1.0)
    assert list(beam.pieces(output, blank=0)) == [(3, 5), (7, 8)]
    assert list(beam.pieces(output[:0], blank=0)) == []


def test_long_pieces_are_cut_at_a_sure_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beam, "LONGEST", 100)
    output = noise(3, frames=1000, vocab=len(SYMBOLS), scale=0.5)
    cuts = list(beam.pieces(output, blank=0))
    assert cuts[0][0] == 0
    assert cuts[-1][1] == 1000
    assert all(0 < stop - start <= 100 for start, stop in cuts)
    assert all(right[0] - left[1] == 1 for left, right in itertools.pairwise(cuts))
    path = beam.search(output, blank=0, beam_size=4)
    assert (path.first < path.last).all()
    assert (path.last[:-1] <= path.first[1:]).all()


def test_long_recording_costs_what_is_spoken() -> None:
    hour = np.full((180_000, len(SYMBOLS)), -20.0, dtype=np.float32)
    hour[:, 0] = 0
    hour[90_000:90_005] = spoken("ab_|l")
    path = beam.search(hour, blank=0, beam_size=100)
    assert path.ids.tolist() == [5, 6, 4, 7]
    assert path.first.tolist() == [90_000, 90_001, 90_003, 90_004]
