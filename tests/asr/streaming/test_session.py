"""Streams through real models: the same words however the sound is cut, ends of utterances, memory, odd input."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from numpy.typing import NDArray

from runner.asr import windows
from runner.asr.ctc import Ctc, text_of
from runner.asr.pieces import Setup, Source
from runner.asr.score import Scorer
from runner.asr.streaming.batcher import Batcher
from runner.asr.streaming.partial import Final, Partial
from runner.asr.streaming.session import Session
from runner.asr.streaming.settings import Settings, settings
from runner.asr.words import Word
from runner.registry.resolve import resolve
from runner.schema.errors import JobError
from tests.asr import tiny

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

QUICKSTART = Path(__file__).parents[3] / "specs" / "quickstart"
RATE = 16_000
Samples = NDArray[np.float32]


def engine(folder: Path, *, silence_db: float = -60.0) -> tuple[Ctc, Setup]:
    model = resolve(str(folder), folder=folder, allow_pickle=False, trust_remote_code=False, adapter=None)
    facts = model.facts
    source = Source(
        folder=str(folder),
        rate=facts["sample_rate"],
        stride=facts["stride_samples"],
        receptive=facts["receptive_samples"],
        waveform=model.family.features == "waveform",
        normalise=facts["do_normalize"],
        mask=facts["mask"],
    )
    setup = Setup(
        source=source,
        task="ctc",
        precision="fp32",
        device="cpu",
        threads=1,
        beam_size=1,
        timestamps="word",
        silence_db=silence_db,
        language=None,
    )
    return Ctc(setup, dtype=torch.float32), setup


@cache
def quickstart() -> tuple[Ctc, Setup]:
    return engine(QUICKSTART / "model")


def how(setup: Setup, **changed: Any) -> Settings:
    asked: dict[str, Any] = {
        "chunk_s": 0.5,
        "left_s": 1.0,
        "lookahead_s": 0.5,
        "after_text_s": 1.2,
        "longest_s": 20.0,
        "refine": True,
    }
    source = setup.source
    return settings(**{**asked, **changed}, rate=source.rate, stride=source.stride, receptive=source.receptive)


def session(made: tuple[Ctc, Setup] | None = None, **changed: Any) -> Session:
    one, setup = made or quickstart()
    return Session(one, setup=setup, settings=how(setup, **changed))


@cache
def clip(name: str) -> Samples:
    samples, rate = soundfile.read(QUICKSTART / "clips" / name, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), rate, RATE).astype(np.float32)


def silent(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), np.float32)


def stream(one: Session, pieces: Sequence[Samples]) -> tuple[list[Word], list[Final]]:
    """All that ``one`` says of ``pieces``; holds each partial against what came before."""
    words: list[Word] = []
    finals: list[Final] = []
    for partial in partials(one, pieces):
        words += partial.committed
        finals += partial.finals
    assert [word for final in finals for word in final.committed] == words
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    return words, finals


def partials(one: Session, pieces: Sequence[Samples]) -> Iterator[Partial]:
    for piece in pieces:
        partial = one.feed(piece)
        assert all(word.end <= partial.heard for word in partial.committed)
        yield partial
    partial = one.finish()
    assert partial.tail == ""
    yield partial


def said(words: Sequence[Word]) -> str:
    return " ".join(word.word for word in words)


TWO = np.concatenate((silent(0.3), clip("wav-16k.wav"), silent(1.9), clip("flac-16k.flac")))


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
    assert [final.final.text for final in finals] == ["josé contou a chave hoje", "josé dividiu a chave de manhã"]
    assert said(words) == "josé contou a chave hoje josé dividiu a chave de manhã"
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
    assert text == "josé contou a chave hoje josé dividiu a chave de manhã"
    assert all(text.startswith(committed) for committed, _ in seen)
    assert ("josé contou", "a chave hoje") in seen


@pytest.mark.parametrize("refine", [True, False])
def test_it_goes_on_after_minutes_of_silence(refine: bool) -> None:
    long = np.concatenate((clip("wav-16k.wav"), silent(150.03), clip("flac-16k.flac"), silent(60), silent(3)))
    words, finals = stream(session(refine=refine), np.split(long, range(RATE, len(long), RATE)))
    assert said(words).startswith("josé contou a chave hoje josé dividiu a chave ")
    assert [final.ended_by for final in finals] == ["pause", "pause"]
    assert finals[1].final.text.startswith("josé dividiu a chave ")


def test_an_utterance_without_a_pause_is_cut_between_words() -> None:
    sound = np.concatenate([clip("wav-16k.wav"), clip("flac-16k.flac"), clip("flac-22k.flac")] * 2)
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
    _, finals = stream(session(refine=refine), [clip("long-90s.opus")[: 30 * RATE]])
    same = [said(final.committed) == final.final.text for final in finals]
    assert all(same) != refine, "30 s hold words that are read differently with all of their context"


@cache
def offline_text() -> str:
    one, setup = quickstart()
    sound = clip("long-90s.opus")
    source = setup.source
    cut = windows.cut(length_s=20, context_s=1, rate=RATE, stride=source.stride, receptive=source.receptive)
    rows = []
    for window in (cut.window(len(sound), i) for i in range(cut.count(len(sound)))):
        (made,) = one.compute([sound[window.first : window.last]])
        before = window.first // source.stride
        rows.append(made[window.keep_from - before : None if window.keep_to is None else window.keep_to - before])
    return text_of(np.concatenate(rows), setup=setup, alphabet=one.alphabet, first=0, last=len(sound)).text


def errors(reference: str, hypothesis: str) -> float:
    scorer = Scorer()
    scorer.add(reference, hypothesis, key="")
    rate = scorer.result().rates[0].words.rate
    assert rate is not None
    return rate


@pytest.mark.parametrize("refine", [True, False])
def test_two_seconds_of_sound_read_the_long_file_as_well_as_offline(refine: bool) -> None:
    one = session(refine=refine)
    assert one._how.buffer_s <= 2.0
    assert one._how.seconds(one._how.lookahead) <= 0.5
    words, finals = stream(one, np.split(clip("long-90s.opus"), range(8000, len(clip("long-90s.opus")), 8000)))
    rows = [json.loads(line) for line in (QUICKSTART / "clips.jsonl").read_text("utf-8").splitlines()]
    reference = next(row["text"] for row in rows if row["audio"].endswith("long-90s.opus"))
    offline = errors(reference, offline_text())
    assert errors(reference, " ".join(final.final.text for final in finals)) <= offline + 0.01
    assert errors(reference, said(words)) <= offline + 0.01


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
    names = ("wav-16k.wav", "flac-16k.flac", "flac-22k.flac", "opus-16k.opus")
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
    sound = clip("wav-16k.wav")
    broken = sound.copy()
    broken[12_000] = np.nan
    for each, samples in ((bad, broken), (good, sound)):
        each.push(samples)
        each.close()
    Batcher(one.compute, most=40 * RATE).settle([bad, good])
    assert said(good.take().committed) == "josé contou a chave hoje"
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


@pytest.mark.parametrize("refine", [True, False])
def test_memory_does_not_grow_with_the_stream(refine: bool, tmp_path: Path) -> None:
    made = engine(tiny.ctc(tmp_path / "model", "wav2vec2"))
    one = session(made, chunk_s=2.0, left_s=0.1, lookahead_s=0.1, longest_s=6.0, refine=refine)
    pieces = [tiny.sound(10, seed=1), silent(10)]
    tracemalloc.start()
    try:
        held = []
        for minute in range(4):
            for piece in pieces * 3:
                one.feed(piece)
            if minute in {1, 3}:
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 200_000, "two further minutes are 7.7 MB of samples"


def test_a_frame_s_samples_are_always_heard() -> None:
    _, setup = quickstart()
    found = how(setup, lookahead_s=0.0, chunk_s=0.001, left_s=0.0)
    assert (found.chunk, found.left, found.lookahead) == (1, 0, 1)
    assert how(replace(setup, source=replace(setup.source, receptive=2000)), lookahead_s=0.0).lookahead == 6
