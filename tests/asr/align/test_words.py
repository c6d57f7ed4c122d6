"""Words with times and scores, wildcards, and texts that do not fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from runner.asr.align.text import Speller
from runner.asr.align.words import Clock, aligned, quiet_row, unheard
from runner.asr.trouble import RecordingError
from runner.schema.errors import JobError
from tests.asr.signals import ALPHABET, SYMBOLS, spoken

CLOCK = Clock(frame_s=0.02, offset_s=1.0, end_s=99.0)


def found(rows: np.ndarray, text: str | None, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"speller": Speller(ALPHABET), "blank": 0, "say": None, "clock": CLOCK, "chars": True}
    return aligned(rows, text, **(options | changes))


def frames(seconds: float) -> int:
    return round((seconds - 1.0) / 0.02)


def spans(result: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(word["word"], frames(word["start"]), frames(word["end"])) for word in result["words"]]


def test_words_are_where_they_are_said() -> None:
    result = found(spoken("__aab_|_l_l__"), "Ab, ll!")
    assert spans(result) == [("Ab,", 2, 5), ("ll!", 8, 11)]
    assert result["text"] == "Ab, ll!"
    first = result["words"][0]
    assert [(c["char"], frames(c["start"]), frames(c["end"])) for c in first["chars"]] == [("A", 2, 4), ("b", 4, 5)]
    assert first["score"] == pytest.approx(math.log(0.9), abs=1e-4)
    assert first["confidence"] == pytest.approx(0.9, abs=1e-4)


def test_characters_only_when_asked_for() -> None:
    assert "chars" not in found(spoken("_a_"), "a", chars=False)["words"][0]


def test_a_word_that_is_not_said_scores_low() -> None:
    right, wrong = found(spoken("_a|b_|l_"), "a b l"), found(spoken("_a|b_|l_"), "a ç l")
    assert [word["confidence"] > 0.8 for word in right["words"]] == [True, True, True]
    assert [word["confidence"] > 0.5 for word in wrong["words"]] == [True, False, True]
    assert wrong["confidence"] < right["confidence"]


def test_a_wildcard_takes_what_is_said_there_and_no_silence() -> None:
    result = found(spoken("__ab__|___l_çl__b____|_a__"), "ab 22 a")
    assert spans(result) == [("ab", 2, 4), ("22", 10, 17), ("a", 23, 24)]
    middle = result["words"][1]
    assert (middle["score"], middle["confidence"]) == (None, None)
    assert [c["char"] for c in middle["chars"]] == ["22"]
    assert result["score"] == pytest.approx(math.log(0.9), abs=1e-4), "wildcards count for nothing"


def test_wildcards_inside_a_word_leave_its_letters_alone() -> None:
    result = found(spoken("_ab_l_ll_|_b_"), "ab19 b")
    assert spans(result) == [("ab19", 1, 8), ("b", 11, 12)]
    chars = [(c["char"], frames(c["start"]), frames(c["end"])) for c in result["words"][0]["chars"]]
    assert chars == [("a", 1, 2), ("b", 2, 3), ("19", 4, 8)]


def test_every_word_of_a_text_of_wildcards_has_its_time() -> None:
    result = found(spoken("_ab__|__l__|_ç_"), "1 2 3")
    assert spans(result) == [("1", 1, 3), ("2", 8, 9), ("3", 13, 14)]
    assert (result["score"], result["confidence"]) == (None, None)


def test_spoken_words_are_told() -> None:
    (word,) = found(spoken("_a|b_"), "7", say=lambda text: text.replace("7", "a b"))["words"]
    assert (word["word"], word["spoken"]) == ("7", "a b")
    assert [c["char"] for c in word["chars"]] == ["a", "b"]


def test_words_may_part_in_silence() -> None:
    rows = spoken("_a_____b_")
    rows[3:6] = quiet_row(vocab=len(SYMBOLS), blank=0, delimiter=4, never=-1e4)
    result = found(rows, "a b")
    assert spans(result) == [("a", 1, 2), ("b", 7, 8)]
    assert result["score"] == pytest.approx(math.log(0.9), abs=1e-4)


def test_times_end_with_the_recording() -> None:
    result = found(spoken("_a"), "a", clock=Clock(frame_s=0.08, offset_s=0.0, end_s=0.1))
    assert (result["words"][0]["start"], result["words"][0]["end"]) == (0.08, 0.1)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "no_text", "has no text"),
        ("a b a b a", "text_too_long", "9 symbols, which need 9 frames, but there are 8"),
        ("aaaaa", "text_too_long", "5 symbols, which need 9 frames, but there are 8"),
    ],
)
def test_what_cannot_be_aligned_says_why(text: str | None, name: str, message: str) -> None:
    with pytest.raises(RecordingError, match=message) as trouble:
        found(spoken("________"), text)
    assert (trouble.value.status, trouble.value.name) == ("unaligned", name)


def test_a_text_without_words_is_empty() -> None:
    assert found(spoken("_a_"), "— ...")["words"] == unheard(" ")["words"] == []


def test_silence_has_no_words() -> None:
    for text, name in ((None, "no_text"), ("a — b", "silent")):
        with pytest.raises(RecordingError) as trouble:
            unheard(text)
        assert (trouble.value.status, trouble.value.name) == ("unaligned", name)


def test_nan_is_the_models_fault() -> None:
    rows = spoken("_ab_")
    rows[2] = np.nan
    with pytest.raises(JobError, match="NaN") as error:
        found(rows, "ab")
    assert error.value.failure == "NaN"
