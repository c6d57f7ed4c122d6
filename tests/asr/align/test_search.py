"""Forced alignment: against every path, against the textbook's loop, against torchaudio, and on an hour of speech."""

from __future__ import annotations

import itertools
import resource
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from runner.asr.align import by_torchaudio as align_torchaudio
from runner.asr.align import search as module
from runner.asr.align.search import align, frames_needed
from runner.asr.align.words import quiet_row
from runner.asr.words import Path
from tests.asr.align.plain_viterbi import plain
from tests.asr.signals import noise

Rows = NDArray[np.float32]


def frames_of(path: Path, frames: int, blank: int) -> list[int]:
    """The symbol of each frame; asserts that spans are in order and not empty."""
    found, end = [blank] * frames, 0
    for symbol, first, last in zip(path.ids.tolist(), path.first.tolist(), path.last.tolist(), strict=True):
        assert end <= first < last <= frames
        found[first:last] = [symbol] * (last - first)
        end = last
    return found


def collapsed(path: tuple[int, ...] | list[int], blank: int) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)


def score(rows: Rows, path: list[int] | tuple[int, ...]) -> float:
    return float(rows[np.arange(len(rows)), list(path)].sum(dtype=np.float64))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 4), st.sampled_from([0.1, 2.0, 8.0]))
def test_no_path_of_all_is_better(seed: int, frames: int, vocab: int, sharp: float) -> None:
    rows = noise(seed, frames=frames, vocab=vocab, scale=sharp)
    blank = seed % vocab
    best: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(vocab), repeat=frames):
        said = collapsed(path, blank)
        best[said] = max(best.get(said, -np.inf), score(rows, path))
    for said, most in best.items():
        found = frames_of(align(rows, np.array(said, np.intp), blank=blank), frames, blank)
        assert collapsed(found, blank) == said
        assert score(rows, found) == pytest.approx(most, abs=1e-5)


def random_case(seed: int, *, frames: int, symbols: int, vocab: int = 8) -> tuple[Rows, NDArray[np.intp]]:
    """Output in which ``symbols`` are said, more or less clearly; some of them repeat."""
    random = np.random.default_rng(seed)
    said = random.integers(1, vocab, size=symbols)
    scores = random.normal(size=(frames, vocab)) * random.choice([0.5, 2.0])
    scores[:, 0] += 2.0
    at = np.sort(random.choice(frames, size=symbols, replace=False))
    scores[at, said] += random.choice([0.0, 4.0, 8.0])
    return (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).astype(np.float32), said


@pytest.mark.parametrize("blocks", [False, True], ids=["at-once", "in-blocks"])
@pytest.mark.parametrize("beam", [100.0, 1.0])
@pytest.mark.parametrize("seed", range(20))
def test_the_same_path_as_the_plain_loop(seed: int, beam: float, blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if blocks:
        monkeypatch.setattr(module, "SMALL", 0)
        monkeypatch.setattr(module, "BEAM", beam)
    rows, said = random_case(seed, frames=60 + 7 * seed, symbols=10 + seed)
    assert frames_of(align(rows, said, blank=0), len(rows), 0) == plain(rows, said, blank=0)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 20), st.sampled_from([0, 1 << 24]))
def test_ties_are_broken_alike(seed: int, frames: int, symbols: int, small: int) -> None:
    """Whole numbers as log-probabilities: many paths cost the same to the last bit."""
    random = np.random.default_rng(seed)
    rows = -random.integers(0, 3, size=(frames, 3)).astype(np.float32)
    said = random.integers(1, 3, size=symbols)
    if frames_needed(said) > frames:
        with pytest.raises(ValueError, match=f"need {frames_needed(said)} frames, got {frames}"):
            align(rows, said, blank=0)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SMALL", small)
        assert frames_of(align(rows, said, blank=0), frames, 0) == plain(rows, said, blank=0)


@pytest.mark.parametrize("small", [0, 1 << 24])
@pytest.mark.parametrize("more", [1e-3, 1.0, 30.0, np.inf])
def test_a_search_finds_the_best_path_just_where_it_may_cost_that_much(
    more: float, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL", small)
    rows, said = random_case(3, frames=200, symbols=30)
    expected = plain(rows, said, blank=0)
    cost = float(rows.max(axis=1).sum(dtype=np.float64)) - score(rows, expected)
    lattice = module._Lattice(rows, said, blank=0)
    found = lattice.search(cost + more)
    assert found is not None
    assert frames_of(found, 200, 0) == expected
    assert lattice.search(cost - 1e-3) is None


def test_impossible_symbols_have_no_path() -> None:
    rows = noise(0, frames=20, vocab=4)
    rows[:, 2] = -np.inf
    assert frames_of(align(rows, np.array([1, 3]), blank=0), 20, 0)
    with pytest.raises(ValueError, match="no path with a probability"):
        align(rows, np.array([1, 2]), blank=0)
    with pytest.raises(ValueError, match="no path with a probability"):
        align(np.full((5, 4), np.nan, np.float32), np.array([1]), blank=0)


def test_no_symbols_are_an_empty_path() -> None:
    assert len(align(noise(0, frames=5, vocab=3), np.array([], np.intp), blank=0).ids) == 0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.skipif(align_torchaudio.MISSING is not None, reason=f"torchaudio: {align_torchaudio.MISSING}")
def test_the_same_path_as_torchaudio(seed: int) -> None:
    rows, said = random_case(seed, frames=100 + 13 * seed, symbols=10 + 3 * seed)
    ours, theirs = align(rows, said, blank=0), align_torchaudio.align(rows, said, blank=0)
    assert frames_of(theirs, len(rows), 0) == frames_of(ours, len(rows), 0)


def with_silence(seed: int) -> tuple[Rows, NDArray[np.intp]]:
    """Words between delimiters, some of them a wildcard (8), in output with stretches of silence."""
    random = np.random.default_rng(seed)
    words = [random.integers(1, 7, size=random.integers(1, 5)) if random.random() < 0.8 else [8] for _ in range(5)]
    said = np.concatenate([[symbol for word in words for symbol in (*word, 7)][:-1]]).astype(np.intp)
    rows, _ = random_case(seed, frames=int(random.integers(60, 120)), symbols=len(said))
    for first in random.integers(0, len(rows), size=random.integers(1, 4)):
        rows[first : first + random.integers(1, 25)] = quiet_row(vocab=8, blank=0, delimiter=7, never=-1e4)
    return np.column_stack([rows, rows.max(axis=1) - np.float32(0.1)]), said


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.skipif(align_torchaudio.MISSING is not None, reason=f"torchaudio: {align_torchaudio.MISSING}")
def test_silence_has_the_best_path_with_torchaudio_too(seed: int) -> None:
    rows, said = with_silence(seed)
    ours, found = align(rows, said, blank=0), align_torchaudio.best_path(rows, said, blank=0)
    assert frames_of(found, len(rows), 0) == frames_of(ours, len(rows), 0) == plain(rows, said, blank=0)


@pytest.mark.parametrize(("silent", "asked"), [(False, True), (True, False)])
def test_torchaudio_is_asked_only_where_its_path_is_the_best(
    silent: bool, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, said = random_case(3, frames=60, symbols=9)
    if silent:
        rows[30:33] = quiet_row(vocab=8, blank=0, delimiter=None, never=-1e4)
    calls: list[int] = []

    def theirs(rows: Rows, said: NDArray[np.intp], *, blank: int) -> Path:
        calls.append(len(rows))
        return align(rows, said, blank=blank)

    monkeypatch.setattr(align_torchaudio, "MISSING", None)
    monkeypatch.setattr(align_torchaudio, "align", theirs)
    found = align_torchaudio.best_path(rows, said, blank=0)
    assert frames_of(found, len(rows), 0) == plain(rows, said, blank=0)
    assert bool(calls) == asked
    long = np.tile(said, 4)
    with pytest.raises(ValueError, match="need"):
        align_torchaudio.best_path(rows[:20], long, blank=0)
    assert len(calls) == asked, "what does not fit is not theirs"


def speech(seed: int, *, hours: float, wrong: float) -> tuple[Rows, NDArray[np.intp]]:
    """Frames in which 50,000 letters an hour are said, sharply as trained models do; ``wrong`` of them misheard."""
    random = np.random.default_rng(seed)
    frames, letters, vocab = round(180_000 * hours), round(50_000 * hours), 32
    said = random.integers(1, vocab, size=letters)
    heard = np.where(random.random(letters) < wrong, random.integers(1, vocab, size=letters), said)
    scores = random.normal(size=(frames, vocab)).astype(np.float32)
    scores[:, 0] += 10
    scores[np.sort(random.choice(frames // 2, size=letters, replace=False)) * 2, heard] += 18
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True), said


@pytest.mark.slow
@pytest.mark.parametrize(("hours", "wrong"), [(1, 0.05), (0.4, 0.3)])
def test_an_hour_with_its_text(hours: float, wrong: float) -> None:
    rows, said = speech(0, hours=hours, wrong=wrong)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    path = align(rows, said, blank=0)
    spent, grown = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (path.first < path.last).all()
    assert (path.last[:-1] <= path.first[1:]).all()
    heard = rows[path.first, said] > -3
    assert heard.mean() > 0.98 * (1 - wrong)
    assert spent < 120, f"{spent:.0f} CPU-s"
    assert grown < 1_000_000, f"{grown / 1e6:.2f} GB"
