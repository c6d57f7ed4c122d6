"""N-gram models: trained, written, read again, and held against sums that are slow and plain."""

from __future__ import annotations

import gzip
import math
import random
import tracemalloc
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from runner.asr.language import arpa
from runner.asr.language.ngram import END, START, UNKNOWN, Ngram, perplexity
from runner.asr.language.ngram_train import train
from runner.schema.errors import JobError

SENTENCES = [line.split() for line in ("a b c", "a b d", "b c a", "c", "a b c d", "d d d", "a a b", "c b a d")]
HAND = """made by hand

\\data\\
ngram 1=5
ngram 2=4
ngram 3=1

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-0.8\t</s>
-0.4\toi\t-0.3
-0.6\tção\t-0.2

\\2-grams:
-0.2\t<s> oi\t-0.1
-0.3 oi ção -0.05
-0.4\tção </s>
-0.7\tção ção

\\3-grams:
-0.1\t<s> oi ção

\\end\\
"""


def log10(model: Ngram, words: str) -> float:
    """Of the last word after the others, which begin the sentence."""
    state, score = model.begin(), 0.0
    for word in words.split():
        score, state = model.score(state, model.id(word))
    return score / math.log(10)


@pytest.fixture
def hand(tmp_path: Path) -> Path:
    path = tmp_path / "hand.arpa"
    path.write_text(HAND, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("words", "score"),
    [
        ("oi", -0.2),  # listed after <s>
        ("oi ção", -0.1),  # the longest
        ("ção", -0.5 - 0.6),  # backs off from <s>
        ("oi oi", -0.1 - 0.3 - 0.4),  # twice
        ("oi ção </s>", -0.05 - 0.4),  # the trigram has no backoff: its weight is 1
        ("ção oi ção", -0.3),
        ("ção ção ção", -0.7),
        ("oi outro", -0.1 - 0.3 - 1.0),
        ("oi outro ção", -0.6),  # nothing is known of what follows an unknown word
    ],
)
def test_scores_of_a_file_made_by_hand(hand: Path, words: str, score: float) -> None:
    assert log10(arpa.read(hand), words) == pytest.approx(score, abs=1e-6)


def test_gzip_reads_alike(hand: Path) -> None:
    zipped = hand.with_suffix(".arpa.gz")
    zipped.write_bytes(gzip.compress(hand.read_bytes()))
    assert arpa.read(zipped).sizes == arpa.read(hand).sizes == (5, 4, 1)


def test_a_model_without_unk_or_ends_takes_its_least_likely_word(tmp_path: Path) -> None:
    path = tmp_path / "bare.arpa"
    path.write_text("\\data\\\nngram 1=2\n\\1-grams:\n-0.3 a\n-0.5 b\n\\end\\\n")
    model = arpa.read(path)
    assert (model.order, model.start, model.end) == (1, None, None)
    assert log10(model, "a z") == pytest.approx(-0.5)
    assert perplexity(model, [["a", "z"]]).value == pytest.approx(10**0.3)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\\data\\", "data", "this is no ARPA file"),
        ("ngram 2=4", "ngram 2=5", "expected a number, 2 words and perhaps a number"),
        ("ngram 2=4", "ngram 2=3", "expected \\3-grams:, got '-0.7"),
        ("ngram 2=4", "ngram 3=4", "expected 'ngram 2=COUNT'"),
        ("ngram 1=5", "ngram 1=0", "the header counts no words"),
        pytest.param("ngram 2=4", f"ngram 2={'9' * 5000}", "hand.arpa:5: a count of 5000 digits", id="5000 digits"),
        ("ngram 2=4", f"ngram 2={'9' * 18}", "expected a number, 2 words and perhaps a number"),
        ("-0.6\tção\t-0.2", "-0.6\toi\t-0.2", "1 of the 5 words are there twice"),
        ("-0.4\tção </s>", "-0.4\tção nada", "the word 'nada' is no unigram"),
        ("-0.4\tção </s>", "-0.3\toi ção", "'oi ção' below line 13 is there twice"),
        ("-0.1\t<s> oi ção", "-0.1\t<s> ção oi", "the words that it begins with are no n-gram"),
        ("-0.3 oi", "nan oi", "has the probability nan"),
        ("-0.3 oi", "0.3 oi", "has the probability 0.3"),
        ("-0.3 oi", "x oi", "could not convert"),
        ("-0.1\t<s> oi ção\n\n\\end\\\n", "", "the file ends 1 3-grams too early"),
        ("\\end\\\n", "", "the file is cut off"),
    ],
)
def test_a_broken_file_is_named_with_its_line(hand: Path, old: str, new: str, said: str) -> None:
    assert old in HAND
    hand.write_text(HAND.replace(old, new), encoding="utf-8")
    with pytest.raises(JobError, match=r"hand\.arpa") as caught:
        arpa.read(hand)
    assert said in str(caught.value)
    assert caught.value.failure == "DataInvalid"


def test_what_is_no_arpa_file_is_said(tmp_path: Path) -> None:
    zipped = gzip.compress(HAND.encode())
    for name, content in {
        "kenlm": b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(1 << 20),
        "zeros": bytes(1 << 20),
        "empty": b"",
        "torn.gz": gzip.compress(HAND.encode())[:-20],
        "damaged.gz": zipped[:20] + bytes(byte ^ 255 for byte in zipped[20:30]) + zipped[30:],
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(JobError, match=name):
            arpa.read(path)
    with pytest.raises(JobError, match=r"no\.arpa cannot be read"):
        arpa.read(tmp_path / "no.arpa")


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_after_anything_sum_to_1(order: int) -> None:
    trained = train(SENTENCES, order=order)
    model = trained.model()
    assert model.order == order
    predicted = [word for word in trained.words if word != START]
    for history in product("abcdz", repeat=2):
        state = model.begin()
        for word in ("", *history):
            state = model.score(state, model.id(word))[1] if word else state
            total = sum(math.exp(model.score(state, model.id(word))[0]) for word in predicted)
            assert total == pytest.approx(1, abs=1e-5), (order, history)


def plain(order: int) -> dict[tuple[str, ...], float]:
    """Interpolated Kneser-Ney of SENTENCES by its formulas, with the discounts of small text: of every n-gram seen."""
    seen = [(START, *sentence, END) for sentence in SENTENCES]
    raw = [Counter(s[i : i + n] for s in seen for i in range(len(s) - n + 1)) for n in range(1, order + 1)]
    words = {word for sentence in SENTENCES for word in sentence} | {UNKNOWN, END}

    def count(gram: tuple[str, ...]) -> int:
        if len(gram) == order or gram[0] == START:
            return 0 if gram == (START,) else raw[len(gram) - 1][gram]
        return sum(longer[1:] == gram for longer in raw[len(gram)])

    def probability(gram: tuple[str, ...]) -> float:
        if not gram:
            return 1 / len(words)
        discount = (0, 0.5, 1.0, 1.5)
        beside = [count((*gram[:-1], word)) for word in words]
        if not sum(beside):
            return probability(gram[1:])
        kept = count(gram) - discount[min(count(gram), 3)]
        free = sum(discount[min(c, 3)] for c in beside)
        return (kept + free * probability(gram[1:])) / sum(beside)

    return {gram: probability(gram) for counted in raw for gram in counted if gram[-1] != START}


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_trained_as_the_formulas_say(order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.asr.language.ngram_train._discounts", lambda _: np.array([0.5, 1.0, 1.5]))
    trained = train(SENTENCES, order=order)
    found = {
        tuple(trained.words[id_] for id_ in ids): 10**p
        for grams in trained.orders
        for ids, p in zip(grams.ids.tolist(), grams.probability.tolist(), strict=True)
    }
    expected = plain(order)
    for gram, value in expected.items():
        assert found[gram] == pytest.approx(value, rel=1e-5), gram
    assert found.keys() - expected.keys() == {(START,), (UNKNOWN,)}


def test_a_written_model_reads_as_it_was_trained(tmp_path: Path) -> None:
    trained = train(SENTENCES, order=3)
    arpa.write(tmp_path / "a.arpa", trained.words, trained.orders)
    arpa.write(tmp_path / "b.arpa", trained.words, train(list(SENTENCES), order=3).orders)
    assert (tmp_path / "a.arpa").read_bytes() == (tmp_path / "b.arpa").read_bytes()
    read, made = arpa.read(tmp_path / "a.arpa"), trained.model()
    for history in product("abcdz", repeat=3):
        assert log10(read, " ".join(history)) == pytest.approx(log10(made, " ".join(history)), abs=1e-5)


def test_discounts_are_counted_where_the_text_says_enough() -> None:
    generator = random.Random(0)
    words = [f"w{i}" for i in range(300)]
    weights = [1 / (i + 1) for i in range(300)]
    text = [generator.choices(words, weights, k=generator.randint(2, 9)) for _ in range(600)]
    trained = train(text, order=3)
    model = trained.model()
    total = sum(math.exp(model.score(model.begin(), model.id(word))[0]) for word in trained.words if word != START)
    assert total == pytest.approx(1, abs=1e-5)
    fresh = [generator.choices(words, weights, k=5) for _ in range(200)]
    assert perplexity(model, fresh).value < 0.7 * len(words)
    assert perplexity(train(text, order=1).model(), text).value > 2 * perplexity(model, text).value


def test_perplexity_leaves_unknown_words_out_and_counts_them() -> None:
    model = train(SENTENCES, order=2).model()
    known, with_unknown = perplexity(model, [["a", "b"]]), perplexity(model, [["a", "b", "zebra"]])
    assert (known.words, known.unknown) == (2, 0)
    assert (with_unknown.words, with_unknown.unknown) == (3, 1)
    assert perplexity(model, []).value is None


def test_memory_of_reading_follows_the_n_grams_not_the_text(tmp_path: Path) -> None:
    ranks = np.random.default_rng(0).zipf(1.2, size=(3000, 10)) % 3000
    said = [[f"palavra{rank}" for rank in row] for row in ranks.tolist()]
    made = train(said, order=3)
    arpa.write(tmp_path / "lm.arpa", made.words, made.orders)
    tracemalloc.start()
    try:
        sizes = arpa.read(tmp_path / "lm.arpa").sizes
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(sizes) > 30_000
    assert peak < 100 * sum(sizes) + 500_000, "an n-gram as tuple and dictionary entry would be 250 bytes and more"
