"""Texts as a model would spell them, and which spoken words belong to which written ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.asr import portuguese
from runner.asr.align.text import Speller, matched
from runner.asr.alphabet import Alphabet

LETTERS = Alphabet(texts=("", "", *"abcdeghinorstuvxãçéó'"), breaks=frozenset({1}), blank=0)
UPPER = Alphabet(texts=("", "", *"ABC"), breaks=frozenset({1}), blank=0, lower=True)
PIECES = Alphabet(
    texts=("", "ca", "casa", "sa", "s", "a", "", "bo", "Bo", "bo", "lo"), breaks=frozenset({1, 2, 6, 9}), blank=0
)
SAY = portuguese.normaliser(portuguese.Settings())


def spelled(word: str, alphabet: Alphabet = LETTERS) -> list[str] | None:
    speller = Speller(alphabet)
    found = speller.spell(word, (word,))
    if found is None:
        return None
    assert len(found.symbols) == len(found.texts)
    return [f"*{text}" if id_ == speller.wildcard else text for id_, text in zip(*_pair(found), strict=True)]


def _pair(found: object) -> tuple[tuple[int, ...], tuple[str, ...]]:
    return found.symbols, found.texts  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("word", "symbols"),
    [
        ("casa", ["c", "a", "s", "a"]),
        ("Ção,", ["Ç", "ã", "o"]),
        ("22", ["*22"]),
        ("1.998,50", ["*199850"]),
        ("covid-19", ["c", "o", "v", "i", "d", "*19"]),
        ("d’água", ["d", "'", "*á", "g", "u", "a"]),
        ("'até'", ["a", "t", "é"]),
        ("guarda-chuva", ["g", "u", "a", "r", "d", "a", "c", "h", "u", "v", "a"]),
        ("50%", ["*50%"]),
        ("R$", ["r".upper(), "*$"]),
        ("%", ["*%"]),
        ("e\u0301", ["é"]),
        ("—", None),
        ("...", None),
        ("-", None),
        ("\u200d", None),
    ],
)
def test_characters(word: str, symbols: list[str] | None) -> None:
    assert spelled(word) == symbols


def test_either_case_will_do() -> None:
    assert spelled("aBc", UPPER) == ["a", "B", "c"]
    assert Speller(UPPER).spell("aBc", ("aBc",)).symbols == (2, 3, 4)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("word", "symbols"),
    [
        ("casa", (2,)),
        ("casas", (2, 4)),
        ("casaca", (2, 11, 5)),  # `ca` only begins words
        ("Bolo", (9, 10)),
        ("lobo", (6, 10, 7)),  # `lo` begins no word, so the sign that does stands before it
        ("x", (11,)),
        ("xlo", (11, 10)),
    ],
)
def test_pieces(word: str, symbols: tuple[int, ...]) -> None:
    found = Speller(PIECES).spell(word, (word,))
    assert found is not None
    assert found.symbols == symbols


def test_words_that_are_said_for_one_are_kept_apart() -> None:
    found = Speller(LETTERS).spell("22", ("vinte", "e", "dois"))
    assert found is not None
    assert (found.spoken, found.texts.count(""), found.symbols.count(1)) == ("vinte e dois", 2, 2)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("O Sr. Silva", {"Sr.": "senhor"}),
        ("comprou 22 maçãs", {"22": "vinte e duas"}),
        ("custa R$ 50.", {"R$ 50.": "cinquenta reais"}),
        ("R$ 5 mil (ou 22)", {"R$ 5 mil": "cinco mil reais", "(ou": "ou"}),
        ("5 kg a € 3", {"kg": "quilos", "€ 3": "três euros"}),
        ("10 % ou 3 por cento", {"%": "por cento", "3": "três"}),
        ("às 14h30 — ou não", {"14h30": "catorze horas e trinta minutos", "—": ""}),
        ("1 2 3", {"1": "um", "2": "dois", "3": "três"}),
    ],
)
def test_what_is_said_stays_with_what_is_written(text: str, groups: dict[str, str]) -> None:
    found = {word: " ".join(spoken) for word, spoken in matched(text, SAY)}
    assert {word: found.get(word) for word in groups} == groups


def test_without_a_normaliser_words_are_said_as_written() -> None:
    assert matched(" Olá,  22 —", None) == [("Olá,", ("Olá,",)), ("22", ("22",)), ("—", ("—",))]


@given(st.lists(st.sampled_from(["casa", "R$", "5", "mil", "22", "%", "—", "Sr.", "1º", "12h", ",", "é", "kg"])))
def test_nothing_written_or_spoken_is_lost(words: list[str]) -> None:
    text = " ".join(words)
    found = matched(text, SAY)
    assert " ".join(word for word, _ in found) == text
    assert " ".join(word for _, spoken in found for word in spoken) == SAY(text)
