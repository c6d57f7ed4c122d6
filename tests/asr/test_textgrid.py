"""TextGrids that Praat reads: tiers without gap or overlap, from 0 to the end."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.asr.textgrid import render
from runner.asr.words import Char, Word

Tier = tuple[str, list[tuple[float, float, str]]]


def parsed(content: str) -> tuple[float, list[Tier]]:
    """An independent reader of Praat's long form."""
    values = re.findall(r'(?m)^\s*(?:(xmin|xmax|size|name|text) = |(intervals): size = )("(?:[^"]|"")*"|\S+)', content)
    items = iter([(name or other, value) for name, other, value in values])

    def number(wanted: str) -> float:
        name, value = next(items)
        assert name == wanted, (name, wanted)
        return float(value)

    def text(wanted: str) -> str:
        name, value = next(items)
        assert name == wanted
        return value[1:-1].replace('""', '"')

    assert content.startswith('File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin')
    assert number("xmin") == 0
    end = number("xmax")
    tiers = []
    for _ in range(int(number("size"))):
        name = text("name")
        assert (number("xmin"), number("xmax")) == (0, end)
        tier = [(number("xmin"), number("xmax"), text("text")) for _ in range(int(number("intervals")))]
        tiers.append((name, tier))
    assert next(items, None) is None
    return end, tiers


def word(text: str, start: float, end: float, *, chars: bool = False) -> Word:
    spelled = tuple(Char(char=c, start=start, end=end) for c in (text[0],)) if chars else ()
    return Word(word=text, start=start, end=end, confidence=0.5, chars=spelled)


def test_words_and_pauses() -> None:
    end, tiers = parsed(render([word("olá", 0.5, 0.75), word('dis"se', 0.75, 1.0)], end_s=2.0))
    assert end == 2.0
    assert tiers == [("words", [(0, 0.5, ""), (0.5, 0.75, "olá"), (0.75, 1.0, 'dis"se'), (1.0, 2.0, "")])]


def test_characters_are_a_tier_of_their_own() -> None:
    _, tiers = parsed(render([word("a", 0.0, 1.0, chars=True)], end_s=1.0))
    assert [name for name, _ in tiers] == ["words", "characters"]


@pytest.mark.parametrize("end_s", [None, 0.0, 3.0])
def test_without_words_a_tier_is_one_pause(end_s: float | None) -> None:
    end, tiers = parsed(render([], end_s=end_s))
    assert tiers == [("words", [(0, end, "")])]
    assert end == (end_s or 0.001)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=20), st.integers(0, 1000))
def test_tiers_are_whole(spans: list[tuple[int, int]], end: int) -> None:
    clock, words = 0, []
    for gap, length in spans:
        words.append(word("x", (clock + gap) / 50, (clock + gap + length) / 50))
        clock += gap + length
    last, ((_, tier),) = parsed(render(words, end_s=end / 50))
    assert tier[0][0] == 0
    assert tier[-1][1] == last
    assert all(first < second for first, second, _ in tier)
    assert all(left[1] == right[0] for left, right in pairwise(tier))
    assert sum(text == "x" for _, _, text in tier) == len(words)
