"""Streams through real models: the same words however the sound is cut, ends of utterances, memory, odd input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from runner.asr.streaming.batcher import Batcher
from runner.asr.streaming.partial import Final
from runner.asr.words import Word
from runner.registry.recognise import families
from runner.schema.errors import JobError
from tests.asr import tiny
from tests.asr.streaming import spelled
from tests.asr.streaming.live import (
    RATE,
    Samples,
    clip,
    engine,
    errors,
    how,
    partials,
    quickstart,
    said,
    session,
    silent,
    stream,
)

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

TWO = np.concatenate((silent(0.3), clip("wav-22k.wav"), silent(1.9), clip("opus-16k.opus")))


@cache
def two(refine: bool) -> tuple[list[Word], list[Final]]:
    return stream(session(refine=refine, chunk_s=0.8), [TWO])


@examples(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, len(TWO)), max_size=40), refine=st.booleans())
def test_how_the_sound_is_cut_changes_nothing(cuts: list[int], refine: bool) -> None:
    pieces = np.split(TWO, sorted(cuts))
    assert stream(session(refine=refine, chunk_s=0.8), pieces) == two(refine)


@pytest.mark.parametrize("size", [1, 160, 333])
def test_pieces_of_a_few_samples_change_nothing(size: int) -> None:
    sound = TWO[: 3 * RATE]
    if size == 1:
        sound = sound[RATE // 2 : RATE]
    pieces = np.split(sound, range(size, len(sound), size))
    assert stream(session(), pieces) == stream(session(), [sound])


def test_a_pause_ends_an_utterance_and_the_stream_goes_on() -> None:
    words, finals = two(True)
    assert [final.ended_by for final in finals] == ["pause", "close"]
    assert [final.final.text for final in finals] == ["o cachorro não viu a lâmpada", "você esqueceu o pão"]
    assert said(words) == "o cachorro não viu a lâmpada você esqueceu o pão"
    first, second = finals
    for final in finals:
        assert 0 <= final.committed[0].start - final.start <= 0.32
        assert 0 <= final.end - final.committed[-1].end <= 0.32
    assert first.end < second.start
    assert 1.2 <= first.decided - first.committed[-1].end <= 1.2 + 0.8 + 0.5 + 0.1
    assert first.final.words[-1].end <= first.end


def test_words_are_committed_by_and_by_and_the_tail_runs_ahead() -> None:
    one, text, seen = session(), "", set()
    for partial in partials(one, np.split(TWO, range(1600, len(TWO), 1600))):
        text = f"{text} {said(partial.committed)}".strip()
        seen.add((text, partial.tail))
    assert text == "o cachorro não viu a lâmpada você esqueceu o pão"
    assert all(text.startswith(committed) for committed, _ in seen)
    assert ("o cachorro não", "viu a l") in seen


@pytest.mark.parametrize("refine", [True, False])
def test_it_goes_on_after_minutes_of_silence(refine: bool) -> None:
    long = np.concatenate((clip("wav-22k.wav"), silent(150.03), clip("opus-16k.opus"), silent(60), silent(3)))
    words, finals = stream(session(refine=refine), np.split(long, range(RATE, len(long), RATE)))
    assert said(words).startswith("o cachorro não viu a lâmpada você esqueceu ")
    assert [final.ended_by for final in finals] == ["pause", "pause"]
    assert finals[1].final.text.startswith("você esqueceu ")


def test_an_utterance_without_a_pause_is_cut_between_words() -> None:
    sound = np.concatenate([clip("wav-22k.wav"), clip("flac-16k.flac"), clip("flac-22k.flac")] * 2)
    words, finals = stream(session(longest_s=4.0), [sound])
    assert len(finals) >= 3
    assert {final.ended_by for final in finals} == {"longest", "close"}
    for before, after in pairwise(finals):
        assert before.end <= after.start
        assert before.committed[-1].end <= before.end <= after.committed[0].start
    assert all(final.end - final.start <= 4.0 + 0.5 + 0.02 for final in finals)
    wrong = errors(said(words), " ".join(final.final.text for final in finals))
    assert wrong <= 0.1


@pytest.mark.parametrize("refine", [True, False])
def test_without_a_final_reading_the_committed_words_are_the_text(refine: bool) -> None:
    sound = np.concatenate((silent(0.3), clip("wav-22k.wav"), silent(1.9), clip("flac-22k.flac")))
    _, finals = stream(session(refine=refine, chunk_s=0.8), [sound])
    same = [said(final.committed) == final.final.text for final in finals]
    assert all(same) != refine, "one of the words is read differently with all of its context"


@pytest.mark.parametrize(("long", "rereads"), [(0.99, True), (0.9, True), (0.6, False)])
def test_the_surer_of_two_readings_is_the_final_text(long: float, rereads: bool) -> None:
    """The made-up engine drops the letter ç where it hears more than 2.5 s at once."""
    made = spelled.Spelled(sure=long, lost="ç")
    sound = np.concatenate((spelled.sound("bala ça lab all bala çal lab bala "), spelled.silence(2)))
    words, (final,) = stream(spelled.session(made, refine=True), np.split(sound, range(1600, len(sound), 1600)))
    assert said(words) == "bala ça lab all bala çal lab bala"
    assert final.final.text == (said(words).replace("ç", "") if rereads else said(words))


def test_there_is_a_model_of_every_ctc_family() -> None:
    assert {name for name, family in families().items() if family.task == "ctc"} <= set(tiny.CTC)


@pytest.mark.parametrize("name", tiny.CTC)
def test_every_family_streams(name: str, tmp_path: Path) -> None:
    made = engine(tiny.ctc(tmp_path / "model", name))
    sound = np.concatenate([silent(0.1), tiny.sound(2.03, seed=1), silent(3.0), tiny.sound(1.27, seed=2)])
    how_ = {"chunk_s": 0.4, "left_s": 0.64, "lookahead_s": 0.32}
    whole = stream(session(made, **how_), [sound])
    assert len(whole[0]) > 2
    pieces = np.split(sound, sorted(np.random.default_rng(0).integers(0, len(sound), 30)))
    assert stream(session(made, **how_), pieces) == whole


def test_many_sessions_share_one_model() -> None:
    one, _ = quickstart()
    names = ("wav-22k.wav", "flac-16k.flac", "flac-22k.flac", "opus-16k.opus")
    alone = [stream(session(), [clip(name)]) for name in names]
    calls: list[list[int]] = []

    def compute(asked: Sequence[Samples]) -> list[Any]:
        calls.append([len(window) for window in asked])
        return one.compute(asked)

    batcher = Batcher(compute, most=5 * RATE)
    sessions = [session() for _ in names]
    found: list[tuple[list[Word], list[Final]]] = [([], []) for _ in names]
    for at in range(0, 4 * RATE, 1600):
        for each, name in zip(sessions, names, strict=True):
            piece = clip(name)[at : at + 1600]
            if len(piece):
                each.push(piece)
            elif not each._closed:
                each.close()
        batcher.settle(sessions)
        for each, so_far in zip(sessions, found, strict=True):
            partial = each.take()
            so_far[0].extend(partial.committed)
            so_far[1].extend(partial.finals)
    assert found == alone
    assert max(map(len, calls)) == 4, "the first windows of all four fit into one call"
    assert all(len(call) == 1 or sum(call) <= 5 * RATE for call in calls)
    assert all(call == sorted(call) for call in calls)


def test_what_breaks_one_stream_leaves_the_others_alone() -> None:
    one, _ = quickstart()
    bad, good = session(), session()
    sound = clip("wav-22k.wav")
    broken = sound.copy()
    broken[12_000] = np.nan
    for each, samples in ((bad, broken), (good, sound)):
        each.push(samples)
        each.close()
    Batcher(one.compute, most=40 * RATE).settle([bad, good])
    assert said(good.take().committed) == "o cachorro não viu a lâmpada"
    for _ in range(2):
        with pytest.raises(JobError, match="NaN"):
            bad.take()


@pytest.mark.parametrize("samples", [0, 1, 399, 434, 435, 700, 5000])
def test_streams_of_next_to_nothing(samples: int) -> None:
    sound = TWO[8000 : 8000 + samples]
    words, finals = stream(session(lookahead_s=0.0, left_s=0.0), [sound, sound[:0]])
    assert len(finals) == (1 if words else 0)
    assert stream(session(lookahead_s=0.0, left_s=0.0), [silent(samples / RATE)]) == ([], [])


def test_times_are_the_stream_s_own() -> None:
    shifted = np.concatenate((silent(4), TWO))
    words, _ = stream(session(chunk_s=0.8), [shifted])
    assert [word.word for word in words] == [word.word for word in two(True)[0]]
    for moved, word in zip(words, two(True)[0], strict=True):
        assert moved.start - word.start == pytest.approx(4, abs=0.06)


def test_a_frame_s_samples_are_always_heard() -> None:
    _, setup = quickstart()
    found = how(setup, lookahead_s=0.0, chunk_s=0.001, left_s=0.0)
    assert (found.chunk, found.left, found.lookahead) == (1, 0, 1)
    assert how(replace(setup, source=replace(setup.source, receptive=2000)), lookahead_s=0.0).lookahead == 6
