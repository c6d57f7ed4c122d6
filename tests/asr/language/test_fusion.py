"""Beam search with a language model and hotwords, against sums over every path and plain counts of words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from runner.asr.alphabet import Alphabet
from runner.asr.decode import decode
from runner.asr.language import beam, fusion
from runner.asr.language.fusion import UNKNOWN_COST, Fusion, spelled
from runner.asr.language.hotwords import ROOT, Hotwords
from runner.asr.language.ngram import Ngram
from runner.asr.language.ngram_train import train
from tests.asr.language.test_beam import every_path
from tests.asr.signals import ALPHABET, SYMBOLS, noise, spoken

LETTERS = Alphabet(texts=("", "", "a", "b"), breaks=frozenset({1}), blank=0)
PIECES = Alphabet(texts=("A", "ab", "b", ""), breaks=frozenset({0, 2}), blank=3, lower=True)
MODEL = train([line.split() for line in ("a b ab", "ab a", "ab ab b", "b", "ab a b")], order=3).model()
ALPHA, BETA, WEIGHT = 0.7, 0.9, 1.3


def words_of(spelling: Sequence[int], alphabet: Alphabet) -> list[str]:
    text = "".join((" " if id_ in alphabet.breaks else "") + alphabet.texts[id_] for id_ in spelling)
    return (text.lower() if alphabet.lower else text).split()


def language(words: list[str], model: Ngram, known: set[str]) -> float:
    score, state = 0.0, model.begin()
    for word in words:
        more, state = model.score(state, model.id(word))
        score += ALPHA * more + BETA + (0.0 if word in known else UNKNOWN_COST)
    assert model.end is not None
    return score + ALPHA * model.score(state, model.end)[0]


def hot(words: list[str], phrases: list[str]) -> float:
    """Words that belong to phrases, the longest one from each place on."""
    count = at = 0
    split = sorted((phrase.split() for phrase in phrases), key=len, reverse=True)
    while at < len(words):
        found = next((p for p in split if words[at : at + len(p)] == p), [])
        count += len(found)
        at += max(1, len(found))
    return WEIGHT * count


@pytest.mark.parametrize("alphabet", [LETTERS, PIECES], ids=["letters", "pieces"])
@pytest.mark.parametrize("phrases", [[], ["ba"], ["b a", "ab"]], ids=["plain", "hotword", "phrases"])
@pytest.mark.parametrize("seed", range(12))
def test_wide_beam_is_exact(seed: int, phrases: list[str], alphabet: Alphabet) -> None:
    output = noise(seed, frames=1 + seed % 6, vocab=4, scale=(0.5, 2)[seed % 2])
    summed, _ = every_path(output, alphabet.blank)
    known = {*MODEL.words, *" ".join(phrases).split()}
    fused = {
        spelling: score + language(words, MODEL, known) + hot(words, phrases)
        for spelling, score in summed.items()
        for words in [words_of(spelling, alphabet)]
    }
    hotwords = Hotwords(phrases, weight=WEIGHT)
    symbols, score = beam.best_prefix(
        output.astype(np.float64),
        blank=alphabet.blank,
        beam_size=10_000,
        fusion=Fusion(alphabet, model=MODEL, alpha=ALPHA, beta=BETA, hotwords=hotwords),
        floor=np.inf,
        gap=np.inf,
    )
    assert score == pytest.approx(max(fused.values()), abs=1e-4)
    assert fused[tuple(symbols.tolist())] == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_a_fusion_that_says_nothing_changes_nothing(seed: int) -> None:
    output = noise(seed, frames=40, vocab=len(SYMBOLS), scale=2.0)
    plain = beam.search(output, blank=0, beam_size=20)
    silent = beam.search(output, blank=0, beam_size=20, fusion=Fusion(ALPHABET))
    assert plain.ids.tolist() == silent.ids.tolist()


def test_what_was_said_before_a_pause_counts_after_it() -> None:
    model = train([["a", "b"], ["b", "a"]] * 3, order=2).model()
    output = spoken("b|" + "_" * 50 + "a", share=0.9999)
    output[-1] = spoken("?", share=0.1)[0]  # anything
    output[-1, [5, 6]] = np.log(0.4)  # "a" or "b": only the model can tell
    said = Fusion(ALPHABET, model=model, alpha=1.0)
    assert decode(output, alphabet=ALPHABET, frame_s=0.02, beam_size=8, fusion=said).text == "b a"
    output[0] = spoken("a", share=0.9999)[0]
    assert decode(output, alphabet=ALPHABET, frame_s=0.02, beam_size=8, fusion=said).text == "a b"


def test_a_long_recording_is_settled_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beam, "LONGEST", 40)
    monkeypatch.setattr(fusion, "MOST_CELLS", 100)
    output = spoken("_ab|a__|b_|ab_|b|aa_|___" * 30, share=0.97)
    said = Fusion(ALPHABET, model=MODEL, alpha=0.3, hotwords=Hotwords(["b ab"], weight=1.0))
    expected = beam.search(output, blank=0, beam_size=10)
    found = beam.search(output, blank=0, beam_size=10, fusion=said)
    assert found.ids.tolist() == expected.ids.tolist()
    assert (found.last[:-1] <= found.first[1:]).all()
    assert np.abs(found.first - expected.first).max() <= 1
    assert beam.search(output[:0], blank=0, beam_size=10, fusion=said).ids.tolist() == []


def test_hotwords_count_whole_words_once() -> None:
    phrases = ["rio", "rio grande", "rio grande do sul", "riobaldo", "sul", "grande mar"]
    tree = Hotwords(phrases, weight=WEIGHT)
    vocabulary = ["rio", "grande", "do", "sul", "riobaldo", "mar", "riob", "gra", "x"]
    for words in itertools.product(vocabulary, repeat=4):
        score, place = 0.0, ROOT
        for number, word in enumerate(words):
            if number:
                more, place = tree.boundary(place)
                score += more
            for letter in word:
                more, place = tree.letter(place, letter)
                score += more
        score += tree.ended(place)
        if "rio grande mar" in " ".join(words):  # from the left "rio grande" is first
            continue
        assert score == pytest.approx(hot(list(words), phrases)), words


def test_hotwords_grow_while_they_are_spelled() -> None:
    tree, place, scores = Hotwords(["porto alegre"], weight=6.0), ROOT, []
    for sign in "porto alegra":
        more, place = tree.boundary(place) if sign == " " else tree.letter(place, sign)
        scores.append(more)
    assert all(score > 0 for score in scores[:5] + scores[6:11])
    assert sum(scores) == pytest.approx(0)
    assert sum(scores[:11]) == pytest.approx(6 * (1 + 5 / 6))


def test_hotwords_bring_a_rare_word_back() -> None:
    output: NDArray[np.float32] = spoken("b_a_|_l_a", share=0.9)
    output[2] = np.log(0.01)
    output[2, [5, 6]] = np.log([0.5, 0.4])  # "ba" is a little likelier than "bb"
    options = {"alphabet": ALPHABET, "frame_s": 0.02, "beam_size": 16}
    assert decode(output, **options).text == "ba la"
    wanted = Fusion(ALPHABET, hotwords=Hotwords(["bb"], weight=2.0))
    assert decode(output, fusion=wanted, **options).text == "bb la"
    model = Fusion(ALPHABET, model=train([["ba", "la"]], order=2).model(), alpha=0.5)
    assert decode(output, fusion=model, **options).text == "ba la"


def test_words_that_the_alphabet_cannot_spell_are_told() -> None:
    assert spelled({"bala", "ça", "zé", ""}, ALPHABET) == {"bala", "ça"}
    assert spelled({"abb", "A"}, PIECES) == {"abb"}
