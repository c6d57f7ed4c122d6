"""Vocabularies: what is built, what is shared with the model before, and what a head cannot write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import Wav2Vec2CTCTokenizer

from runner.asr import alphabet
from runner.asr.alphabet import Alphabet
from runner.asr.training import spelling
from runner.schema.errors import JobError


def test_a_built_vocabulary_has_the_characters_of_the_texts_behind_the_special_rows() -> None:
    made = spelling.built(["né d'ó", "a é"], why="the texts")
    assert made.alphabet.texts == ("", "", "", "", "", "'", "a", "d", "n", "é", "ó")
    assert (made.alphabet.blank, made.between) == (0, 4)
    assert made.ids(" né  a ") == [8, 9, 4, 6]
    assert made.ids("né a", ends=True) == [8, 9, 4, 6, 4]
    assert made.ids(" ", ends=True) == []


def test_what_is_built_is_read_back_by_us_and_by_transformers(tmp_path: Path) -> None:
    made = spelling.built(["três maçãs"], why="the texts")
    spelling.write(made, tmp_path)
    assert alphabet.load(tmp_path, vocab_size=len(made.alphabet.texts), blank=0) == made.alphabet
    theirs = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
    assert theirs("três maçãs").input_ids == made.ids("três maçãs")
    assert theirs.pad_token_id == 0
    assert theirs.decode(made.ids("três maçãs")) == "três maçãs"


def test_shared_rows_go_by_character_never_by_position() -> None:
    old = spelling.kept(Alphabet(texts=("b", "", "a", "", "ç"), breaks=frozenset({1}), blank=3), name="the model")
    new = spelling.built(["abd"], why="the texts")
    rows = spelling.shared(old, new)
    assert {new.alphabet.texts[row]: before for row, before in rows.items() if new.alphabet.texts[row]} == {
        "a": 2,
        "b": 0,
    }
    assert rows[new.alphabet.blank] == 3
    assert rows[4] == 1  # between words
    assert not spelling.same(old, new)


def test_a_model_of_capitals_is_given_capitals() -> None:
    old = spelling.kept(Alphabet(texts=("", "|", "A", "Ç"), breaks=frozenset(), blank=0), name="the model")
    assert old.ids("aÇç") == [2, 3, 3]
    assert old.unknown(["aç de", "d"]) == {"d": 2, "e": 1}


def test_a_model_that_writes_without_spaces_is_given_none() -> None:
    old = spelling.kept(Alphabet(texts=("", "a"), breaks=frozenset(), blank=0), name="the model")
    assert old.ids("a a") == [1, 1]


def test_pieces_of_words_are_refused() -> None:
    pieces = Alphabet(texts=("", "ca", "sa"), breaks=frozenset({1}), blank=0)
    with pytest.raises(JobError, match=r"model spells in pieces of words") as caught:
        spelling.kept(pieces, name="model")
    assert caught.value.failure == "ModelInvalid"


@pytest.mark.parametrize("texts", [[], ["  "], ["".join(chr(0x4E00 + n) for n in range(10_001))]])
def test_texts_without_characters_or_with_too_many_are_refused(texts: list[str]) -> None:
    with pytest.raises(JobError, match="1 to 10000 are allowed"):
        spelling.built(texts, why="the texts")


def test_the_delimiter_itself_is_no_character() -> None:
    made = spelling.built(["a|b"], why="the texts")
    assert json.dumps(dict(made.characters)) == '{"a": 5, "b": 6}'
