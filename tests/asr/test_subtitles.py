"""Captions within their limits, and files that a reader gets the same words and times back from."""

from __future__ import annotations

import re
from html import unescape
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.asr import subtitles
from runner.asr.subtitles import captions, check, render
from runner.asr.words import Word
from runner.schema.errors import UsageError


def said(text: str, *, start: float = 0.0, each: float = 0.3, gap: float = 0.1) -> list[Word]:
    words = []
    for word in text.split():
        words.append(Word(word=word, start=round(start, 3), end=round(start + each, 3), confidence=0.9))
        start += each + gap
    return words


def as_words(clock: float, spoken: list[tuple[int, int, str]]) -> list[Word]:
    words = []
    for pause, length, letters in spoken:
        start = clock + pause / 997  # seconds that are no whole milliseconds
        clock = start + length / 997
        words.append(Word(word=letters, start=start, end=clock, confidence=0.5))
    return words


speech = st.builds(
    as_words,
    st.sampled_from([0.0, 35.5, 359_999.0]),
    st.lists(
        st.tuples(st.integers(0, 900), st.integers(0, 2000), st.text("aé<&->", min_size=1, max_size=60)), max_size=15
    ),
)


def milliseconds(time: str) -> int:
    hours, minutes, seconds, ms = map(int, re.split("[:.,]", time))
    assert minutes < 60
    assert seconds < 60
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + ms


def parse(blocks: list[str]) -> list[tuple[int, int, list[str]]]:
    parsed = []
    for block in blocks:
        times, *lines = block.removesuffix("\n").split("\n")
        found = re.fullmatch(r"(\d{2,}:\d\d:\d\d[.,]\d{3}) --> (\d{2,}:\d\d:\d\d[.,]\d{3})", times)
        assert found
        parsed.append((milliseconds(found[1]), milliseconds(found[2]), lines))
    return parsed


def as_read(words: list[Word], name: subtitles.Format) -> list[tuple[int, int, list[str]]]:
    content = render(name, text="", words=words, recording="r")
    blocks = content.split("\n\n") if content else []
    if name == "vtt":
        assert blocks[0].rstrip("\n") == "WEBVTT"
        return [(start, end, [unescape(line) for line in lines]) for start, end, lines in parse(blocks[1:])]
    assert [block.split("\n")[0] for block in blocks] == [str(number + 1) for number in range(len(blocks))]
    return parse([block.split("\n", 1)[1] for block in blocks])


def test_srt() -> None:
    words = [*said("olá mundo"), *said("até logo", start=3725.0)]
    assert render("srt", text="olá mundo até logo", words=words, recording="r") == (
        "1\n00:00:00,000 --> 00:00:01,000\nolá mundo\n\n2\n01:02:05,000 --> 01:02:05,700\naté logo\n"
    )


def test_vtt() -> None:
    words = said("a<b> R&B -->")
    assert render("vtt", text="a<b> R&B -->", words=words, recording="r") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.100\na&lt;b&gt; R&amp;B →\n"
    )


def test_ctm() -> None:
    words = [Word(word="olá", start=1.02, end=1.3, confidence=0.87654)]
    assert render("ctm", text="olá", words=words, recording="my clip", channel="2") == (
        "my_clip 2 1.020 0.280 olá 0.8765\n"
    )


def test_txt() -> None:
    assert render("txt", text="olá mundo", words=(), recording="r") == "olá mundo\n"


@pytest.mark.parametrize(("name", "content"), [("srt", ""), ("vtt", "WEBVTT\n"), ("ctm", ""), ("txt", "")])
def test_nothing_said(name: subtitles.Format, content: str) -> None:
    assert render(name, text="", words=(), recording="r") == content


def test_times_must_have_been_asked_for() -> None:
    check(["txt"], timestamps="none")
    check(["srt", "ctm"], timestamps="word")
    with pytest.raises(UsageError, match=r"srt, vtt need decode\.timestamps"):
        check(["vtt", "txt", "srt"], timestamps="none")
    with pytest.raises(AssertionError):
        render("srt", text="olá", words=(), recording="r")


def test_a_pause_cuts() -> None:
    words = [*said("um dois"), *said("três", start=1.2), *said("quatro", start=2.01)]
    assert [caption.lines for caption in captions(words)] == [("um dois três",), ("quatro",)]


def test_two_full_lines_then_the_next_caption() -> None:
    words = said("nove letra " * 9, each=0.2, gap=0.0)
    first, second = captions(words)
    assert first.lines == ("nove letra nove letra nove letra nove", "letra nove letra nove letra nove letra")
    assert second.start_ms == first.end_ms


def test_short_captions_stay_until_the_next_or_the_end() -> None:
    words = [*said("sim", each=0.1), *said("não", start=0.7, each=0.1), *said("sim", start=5.0, each=0.1)]
    assert [caption.end_ms for caption in captions(words)] == [700, 1700, 5100]
    assert captions(words, duration_s=5.25)[-1].end_ms == 5250
    assert captions(words, duration_s=60.0)[-1].end_ms == 6000


def test_a_word_longer_than_a_line_is_cut() -> None:
    (caption,) = captions([Word(word="x" * 80, start=0.0, end=4.0, confidence=1.0)])
    assert [len(line) for line in caption.lines] == [42, 38]


def test_more_than_99_hours() -> None:
    assert "100:00:00,000 --> 100:00:00,300" in render(
        "srt", text="olá", words=said("olá", start=360_000.0), recording="r"
    )


@given(words=speech)
def test_captions_keep_to_their_limits(words: list[Word]) -> None:
    shown = captions(words)
    longest = max((word.end - word.start for word in words), default=0) * 1000
    for caption in shown:
        assert 0 <= caption.start_ms < caption.end_ms
        assert caption.end_ms - caption.start_ms <= max(subtitles.LONGEST_MS, longest + 2)
        assert 1 <= len(caption.lines) <= subtitles.LINES
        assert all(0 < len(line) <= subtitles.LINE for line in caption.lines)
    assert all(left.end_ms <= right.start_ms for left, right in pairwise(shown))


@pytest.mark.parametrize("name", ["srt", "vtt"])
@given(words=speech)
def test_read_back(name: subtitles.Format, words: list[Word]) -> None:
    expected = [(caption.start_ms, caption.end_ms, list(caption.lines)) for caption in captions(words)]
    assert as_read(words, name) == expected
    lines = [line for _, _, lines in expected for line in lines]
    assert not any("-->" in line for line in lines)
    assert "".join(lines).replace(" ", "") == "".join(word.word.replace("-->", "→") for word in words)


@given(words=speech)
def test_ctm_has_six_fields(words: list[Word]) -> None:
    lines = render("ctm", text="", words=words, recording="a b").splitlines()
    assert len(lines) == len(words)
    for line, word in zip(lines, words, strict=True):
        recording, channel, start, duration, letters, confidence = line.split(" ")
        assert (recording, channel, letters) == ("a_b", "1", word.word)
        assert float(start) + float(duration) == pytest.approx(word.end, abs=2e-3)
        assert 0 <= float(confidence) <= 1
