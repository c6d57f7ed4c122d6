"""Error rates against jiwer's own corpus figures, and the cases that everyone gets wrong."""

from __future__ import annotations

import pickle
import random

import jiwer
import pytest

from runner.asr import score
from runner.asr.normalise import accent_sensitive, leaderboard
from runner.asr.score import Counts, Scorer

WORDS = ["o", "avô", "avó", "cachorro", "maçãs", "guarda-chuva", "d'água", "disse-me", "três", "é", "e", "Rio!"]


def corpus(size: int, *, seed: int = 0) -> list[tuple[str, str]]:
    pick = random.Random(seed)
    pairs = []
    for _ in range(size):
        reference = [pick.choice(WORDS) for _ in range(pick.randint(0, 9))]
        heard = [pick.choice([word, word, word, pick.choice(WORDS), ""]) for word in reference]
        pairs.append((" ".join(reference), " ".join(heard) + pick.choice(["", "", " eco"])))
    return pairs


def scored(*pairs: tuple[str, str]) -> score.Scores:
    scorer = Scorer()
    for number, (reference, hypothesis) in enumerate(pairs):
        scorer.add(reference, hypothesis, key=f"{number:05d}")
    return scorer.result()


def test_corpus_level_as_jiwer_has_it() -> None:
    pairs = corpus(300)
    result = scored(*pairs)
    for rates, normal in zip(result.rates, (accent_sensitive, leaderboard), strict=True):
        reference, hypothesis = ([normal(text) for text in side] for side in zip(*pairs, strict=True))
        words, characters = jiwer.process_words(reference, hypothesis), jiwer.process_characters(reference, hypothesis)
        for ours, theirs in ((rates.words, words), (rates.characters, characters)):
            assert ours.counts == Counts(
                hits=theirs.hits,
                substitutions=theirs.substitutions,
                deletions=theirs.deletions,
                insertions=theirs.insertions,
            )
        assert rates.words.rate == pytest.approx(words.wer)
        assert rates.characters.rate == pytest.approx(characters.cer)
        low, high = rates.words.interval or (0, 0)
        assert low < words.wer < high


def test_accents_count_in_one_convention_only() -> None:
    metrics = scored(("O avô.", "o avó"), ("sim", "sim")).metrics()
    assert metrics["wer"] == pytest.approx(1 / 3)
    assert metrics["cer"] == pytest.approx(1 / 8)
    assert metrics["wer_leaderboard"] == 0
    assert metrics["cer_leaderboard"] == 0
    assert metrics["wer_counts"] == {
        "hits": 2,
        "substitutions": 1,
        "deletions": 0,
        "insertions": 0,
        "references": 3,
    }
    assert metrics["normalisers"] == ["accent-sensitive/1", "leaderboard/1"]
    assert metrics["utterances_scored"] == 2


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "rate"),
    [
        ("", "", Counts(), None),
        ("...", "!", Counts(), None),
        ("", "a b", Counts(insertions=2), None),
        ("a b", "", Counts(deletions=2), 1.0),
        ("a", "a b c d", Counts(hits=1, insertions=3), 3.0),
        ("a b", "a b", Counts(hits=2), 0.0),
    ],
)
def test_empty_sides(reference: str, hypothesis: str, words: Counts, rate: float | None) -> None:
    found = scored((reference, hypothesis)).rates[0].words
    assert found.counts == words
    assert found.rate == rate
    assert found.interval is None


def test_words_said_into_silence_count_in_the_corpus() -> None:
    assert scored(("", "a b"), ("c d e f", "c d e f")).metrics()["wer"] == 0.5


def test_nothing_scored() -> None:
    result = scored()
    assert result.metrics()["wer"] is None
    assert result.intervals() == {}


def test_intervals_have_the_names_of_metrics() -> None:
    result = scored(*corpus(30))
    assert set(result.intervals()) == {"wer", "cer", "wer_leaderboard", "cer_leaderboard"}
    assert set(result.intervals()) < set(result.metrics())


def test_order_does_not_matter() -> None:
    pairs = [(f"{number:05d}", *pair) for number, pair in enumerate(corpus(200))]
    results = []
    for seed in (1, 2):
        random.Random(seed).shuffle(pairs)
        scorer = Scorer()
        for key, reference, hypothesis in pairs:
            scorer.add(reference, hypothesis, key=key)
        results.append(scorer.result())
    assert results[0] == results[1]


def test_add_returns_the_utterance() -> None:
    utterance = Scorer().add("O cachorro!", "o cachorra", key="clip-1")
    assert (utterance.key, utterance.reference, utterance.hypothesis) == ("clip-1", "o cachorro", "o cachorra")
    assert utterance.words == Counts(hits=1, substitutions=1)
    assert utterance.characters == Counts(hits=9, substitutions=1)
    assert utterance.words.rate == 0.5


def test_confusions() -> None:
    result = scored(("a b c", "a x c"), ("b", "x"), ("a b", "a"), ("a", "a z"))
    assert [(each.reference, each.hypothesis, each.count) for each in result.confusions] == [
        ("b", "x", 2),
        ("", "z", 1),
        ("b", "", 1),
    ]


def test_worst_utterances() -> None:
    pairs = [("a " * 200, "a " * (200 - number)) for number in range(150)]
    worst = scored(*pairs).worst
    assert [utterance.words.deletions for utterance in worst] == list(range(149, 99, -1))
    assert scored(("a", "a")).worst == ()


def test_many_confusions_keep_the_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "MOST_PAIRS", 10)
    rare = [(f"r{number}", f"h{number}") for number in range(100)]
    result = scored(*[("comum", "comuna")] * 5, *rare)
    assert (result.confusions[0].reference, result.confusions[0].count) == ("comum", 5)
    assert len(result.confusions) <= 10


def test_a_large_corpus_stays_small() -> None:
    pairs = corpus(200, seed=3)
    scorer = Scorer()
    for number in range(2000):
        scorer.add(*pairs[number % 200], key=f"clips/{number:05d}.flac")
    assert len(pickle.dumps(scorer)) < 100_000  # what is kept of 2,000 utterances of 250 bytes
