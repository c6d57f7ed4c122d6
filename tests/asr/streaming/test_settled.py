"""Which words have ended, from frames that come bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.asr.alphabet import Alphabet
from runner.asr.decode import decode
from runner.asr.streaming.settled import Settled
from tests.asr.signals import ALPHABET, noise, spoken

NEVER = 10**6
PIECES = Alphabet(texts=("", "a", "b", "l"), breaks=frozenset({1, 2}), blank=0)  # `a` and `b` begin a word


def settled(*, word_gap: int = NEVER, alphabet: Alphabet = ALPHABET) -> Settled:
    return Settled(alphabet, word_gap=word_gap, frame_s=0.02)


def words_of(alphabet: Alphabet, rows: np.ndarray, cuts: list[int], *, word_gap: int = NEVER) -> list[tuple]:
    """What is committed when ``rows`` come cut at ``cuts``."""
    one = settled(word_gap=word_gap, alphabet=alphabet)
    words = [word for part in np.split(rows, sorted(cuts)) for word in one.add(part)]
    return [(word.word, word.start, word.end, word.confidence) for word in (*words, *one.close())]


@settings(deadline=None)
@given(seed=st.integers(0, 50), cuts=st.lists(st.integers(0, 120), max_size=20), pieces=st.booleans())
def test_frames_cut_anywhere_give_the_words_of_the_whole(seed: int, cuts: list[int], pieces: bool) -> None:
    alphabet = PIECES if pieces else ALPHABET
    rows = noise(seed, frames=120, vocab=len(alphabet.texts))
    whole = decode(rows, alphabet=alphabet, frame_s=0.02).words
    found = words_of(alphabet, rows, cuts)
    assert [word[:3] for word in found] == [(word.word, word.start, word.end) for word in whole]
    np.testing.assert_allclose([word[3] for word in found], [word.confidence for word in whole], atol=2e-4)


def test_a_word_is_committed_when_a_delimiter_follows() -> None:
    one = settled()
    assert one.add(spoken("aa_b")) == ()
    assert one.waiting
    assert one.tail(spoken("l|ç_")) == "abl ç"
    (word,) = one.add(spoken("_|"))
    assert (word.word, word.start, word.end) == ("ab", 0.0, 0.08)
    assert not one.waiting
    assert one.tail(spoken("")) == ""


def test_a_word_is_committed_when_nothing_follows_for_long() -> None:
    one = settled(word_gap=5)
    assert one.add(spoken("ab____")) == ()
    (word,) = one.add(spoken("_"))
    assert word.word == "ab"
    assert [w.word for w in (*one.add(spoken("la|")), *one.close())] == ["la"]


@pytest.mark.parametrize(("first", "second", "text"), [("al", "l|", "al"), ("al_", "l|", "all"), ("al", "_l|", "all")])
def test_repeats_across_a_cut_are_one_letter_unless_a_blank_is_between(first: str, second: str, text: str) -> None:
    one = settled()
    assert [w.word for w in (*one.add(spoken(first)), *one.add(spoken(second)))] == [text]


def test_pieces_commit_a_word_when_the_next_begins() -> None:
    one = settled(alphabet=PIECES)
    rows = np.log(np.full((6, 4), 0.02, np.float32))
    rows[np.arange(6), [1, 3, 0, 2, 3, 0]] = np.log(0.94)
    assert [word.word for word in one.add(rows)] == ["al"]
    assert one.waiting
    assert [word.word for word in one.close()] == ["bl"]


def test_frames_without_an_open_word_are_given_up() -> None:
    one = settled(word_gap=5)
    for _ in range(100):
        one.add(spoken("_____?|"))
    assert (one.first, one.end, one.spoken) == (700, 700, 0)
    one.add(spoken("ab|" + 40 * "_"))
    assert one.spoken == 702
    assert one.gap_middle == (702 + 743) // 2
    one.add(spoken("____l"))
    assert one.gap_middle == (702 + 747) // 2
