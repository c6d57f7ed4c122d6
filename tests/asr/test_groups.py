"""Error rates by group: each as if the group had been scored alone; and the words that go wrong."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest

from runner.asr.groups import BOUNDS_S, LENGTHS, MOST_VALUES, Groups, length
from runner.asr.score import Scorer

WORDS = ["o", "avô", "avó", "cachorro", "maçãs", "guarda-chuva", "três", "é"]
Utterance = tuple[str, str, Mapping[str, str], float | None]


def corpus(size: int, *, seed: int = 0) -> list[Utterance]:
    pick = random.Random(seed)
    found: list[Utterance] = []
    for _ in range(size):
        reference = [pick.choice(WORDS) for _ in range(pick.randint(0, 8))]
        heard = [pick.choice([word, word, word, pick.choice(WORDS), ""]) for word in reference]
        groups = {"voice": pick.choice(["ana", "rui", "eva"]), "snr": pick.choice(["5", "10", "-2.5", "clean"])}
        found.append((" ".join(reference), " ".join(heard), groups, pick.uniform(0, 20)))
    return found


def grouped(utterances: Sequence[Utterance]) -> Groups:
    scorer, groups = Scorer(), Groups()
    for reference, hypothesis, fields, seconds in utterances:
        groups.add(scorer.add(reference, hypothesis, key=""), groups=fields, seconds=seconds)
    return groups


def test_a_group_has_the_rates_of_its_utterances_alone() -> None:
    utterances = corpus(200)
    rates = grouped(utterances).rates()
    assert list(rates) == ["length", "snr", "voice"]
    for field, values in rates.items():
        for value, (count, words, characters) in values.items():
            alone = Scorer()
            for reference, hypothesis, fields, seconds in utterances:
                if {**fields, "length": length(seconds or 0.0)}[field] == value:
                    alone.add(reference, hypothesis, key="")
            expected = alone.result()
            assert count == expected.utterances
            assert (words, characters) == (expected.rates[0].words, expected.rates[0].characters)
        assert sum(count for count, _, _ in values.values()) == 200


def test_the_table_has_all_first_then_groups_in_the_order_of_people() -> None:
    table = grouped(corpus(300)).table()
    assert [row[:2] for row in table.rows] == [
        ("all", ""),
        *(("length", name) for name in LENGTHS),
        *(("snr", value) for value in ("-2.5", "5", "10", "clean")),
        *(("voice", value) for value in ("ana", "eva", "rui")),
    ]
    whole = dict(zip(table.columns, table.rows[0], strict=True))
    assert whole["utterances"] == 300
    assert whole["from"] < whole["WER"] < whole["to"]
    assert whole["WER"] == pytest.approx(whole["wrong words"] / whole["words"])


def test_order_does_not_matter() -> None:
    utterances = corpus(100)
    tables = []
    for seed in (1, 2):
        random.Random(seed).shuffle(utterances)
        groups = grouped(utterances)
        tables.append((groups.table(), groups.words()))
    assert tables[0] == tables[1]


def test_before_and_after() -> None:
    fields = {"voice": "ana"}
    after = grouped([("a b c d", "a b c d", fields, None), ("e", "e", {"voice": "rui"}, None)])
    before = grouped([("a b c d", "a x y d", fields, None), ("e", "e", {"voice": "eva"}, None)])
    table = after.table(before=before)
    rows = {row[:2]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert (rows["all", ""]["WER"], rows["all", ""]["WER before"]) == (0.0, 0.4)
    assert rows["all", ""]["before to"] > 0.4
    assert (rows["voice", "ana"]["WER"], rows["voice", "ana"]["WER before"]) == (0.0, 0.5)
    assert rows["voice", "rui"]["WER before"] is None
    assert rows["voice", "ana"]["from"] is None, "one utterance tells no interval"
    words = grouped([("a b", "a x", fields, None)]).words(before=before)
    assert words.columns[-1] == "wrong before"
    assert words.rows == [("b", 1, 1, 1.0, "x 1", 1)]


def test_words_most_often_wrong() -> None:
    groups = grouped(
        [
            ("o avô caiu", "o avó caiu", {}, None),
            ("O avô!", "o avó", {}, None),
            ("avô", "", {}, None),
            ("o rio", "a rio grande", {}, None),
            ("", "nada", {}, None),
            ("avô", "avô", {}, None),
        ]
    )
    table = groups.words()
    assert table.columns == ("word", "said", "wrong", "share", "heard instead")
    assert table.rows == [
        (
            "avô",
            4,
            3,
            0.75,
            "avó 2, (nothing) 1",
        ),
        ("o", 3, 1, pytest.approx(1 / 3), "a 1"),
    ]
    assert table.note == ""


def test_a_column_that_names_each_recording_is_no_group() -> None:
    utterances: list[Utterance] = [
        ("a", "a", {"take": str(number), "voice": "ana"}, None) for number in range(MOST_VALUES + 50)
    ]
    groups = grouped(utterances)
    assert list(groups.rates()) == ["voice"]
    assert groups.table().note.endswith(f"more than {MOST_VALUES} values, so no group: take")
    assert len(grouped(utterances[:MOST_VALUES]).rates()["take"]) == MOST_VALUES


def test_nothing_and_silence() -> None:
    assert grouped([]).table().rows == [("all", "", 0, 0, 0, None, None, None, None)]
    assert grouped([]).words().rows == []
    silence = grouped([("", "", {}, 1.0), ("", "oi", {}, 1.0)]).table()
    assert silence.rows[1] == ("length", "under 2 s", 2, 0, 1, None, None, None, None)


@pytest.mark.parametrize(
    ("seconds", "name"), [(0, "under 2 s"), (2, "2 to 4 s"), (15.9, "8 to 16 s"), (1e6, LENGTHS[-1])]
)
def test_lengths(seconds: float, name: str) -> None:
    assert length(seconds) == name
    assert len(LENGTHS) == len(BOUNDS_S) + 1
