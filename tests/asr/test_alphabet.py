"""The alphabet is what transformers' own tokenizers say it is, and a doubtful one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.asr.alphabet import load
from runner.schema.errors import JobError

LETTERS = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "a": 5, "ç": 6, "'": 7}


def write(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def refused(folder: Path, *, vocab_size: int = 8, blank: int | None = 0, language: str | None = None) -> str:
    with pytest.raises(JobError) as error:
        load(folder, vocab_size=vocab_size, blank=blank, language=language)
    assert error.value.failure == "ModelInvalid"
    assert "\n" not in str(error.value)
    return str(error.value)


def test_characters(tmp_path: Path) -> None:
    alphabet = load(write(tmp_path, vocab=LETTERS), vocab_size=8, blank=0)
    assert alphabet.texts == ("", "", "", "", "", "a", "ç", "'")
    assert alphabet.breaks == {4}
    assert alphabet.blank == 0
    assert not alphabet.lower


def test_names_of_special_tokens_come_from_the_files(tmp_path: Path) -> None:
    vocab = {"a": 0, "_": 1, "?": 2, "<blank>": 3}
    settings = {
        "pad_token": {"content": "<blank>"},
        "unk_token": "?",
        "word_delimiter_token": "_",
        "do_lower_case": True,
    }
    alphabet = load(write(tmp_path, vocab=vocab, tokenizer_config=settings), vocab_size=4, blank=3)
    assert alphabet.texts == ("a", "", "", "")
    assert alphabet.breaks == {1}
    assert alphabet.lower


def test_older_map_file_names_the_blank(tmp_path: Path) -> None:
    folder = write(tmp_path, vocab={"a": 0, "|": 1, "[NIL]": 2}, special_tokens_map={"pad_token": "[NIL]"})
    assert load(folder, vocab_size=3, blank=None).blank == 2


def test_added_tokens_beyond_the_vocabulary_give_no_text(tmp_path: Path) -> None:
    folder = write(tmp_path, vocab={"a": 0, "|": 1, "[PAD]": 2}, added_tokens={"<s>": 3, "</s>": 4})
    assert load(folder, vocab_size=5, blank=2).texts == ("a", "", "", "", "")
    assert load(folder, vocab_size=3, blank=2).texts == ("a", "", "")


def test_outputs_without_a_name_give_no_text(tmp_path: Path) -> None:
    assert load(write(tmp_path, vocab=LETTERS), vocab_size=10, blank=0).texts[8:] == ("", "")


def test_phonemes_are_words(tmp_path: Path) -> None:
    settings = {"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer"}
    folder = write(tmp_path, vocab={"<pad>": 0, "ɐ̃": 1, "tʃ": 2}, tokenizer_config=settings)
    alphabet = load(folder, vocab_size=3, blank=0)
    assert alphabet.texts == ("", "ɐ̃", "tʃ")
    assert alphabet.breaks == {1, 2}


def test_nested_by_language(tmp_path: Path) -> None:
    nested = {"eng": {"<pad>": 0, "|": 1, "w": 2}, "por": {"<pad>": 0, "|": 1, "ã": 2}}
    folder = write(tmp_path, vocab=nested, tokenizer_config={"target_lang": "eng"})
    assert load(folder, vocab_size=3, blank=0).texts[2] == "w"
    assert load(folder, vocab_size=3, blank=0, language="por").texts[2] == "ã"
    write(tmp_path, tokenizer_config={"target_lang": "eng", "added_tokens_decoder": {"9": {"content": "sh"}}})
    assert load(folder, vocab_size=3, blank=0, language="por").texts == ("", "", "ã")
    message = refused(folder, vocab_size=3, language="pt")
    assert "'pt'" in message
    assert "por" in message


@pytest.mark.parametrize("shape", ["bpe", "unigram"])
def test_pieces(tmp_path: Path, shape: str) -> None:
    pieces = ["<unk>", "▁", "▁o", "l", "á", "<pad>"]
    vocab = [[piece, -1.0] for piece in pieces] if shape == "unigram" else {p: i for i, p in enumerate(pieces)}
    tokenizer = {"model": {"vocab": vocab}, "added_tokens": [{"id": 5, "content": "<pad>", "special": True}]}
    alphabet = load(write(tmp_path, tokenizer=tokenizer), vocab_size=6, blank=5)
    assert alphabet.texts == ("", "", "o", "l", "á", "")
    assert alphabet.breaks == {1, 2}


def test_pieces_in_bytes_are_refused(tmp_path: Path) -> None:
    assert "bytes" in refused(write(tmp_path, tokenizer={"model": {"vocab": {"<pad>": 0, "<0x0A>": 1}}}))


def test_blank_in_doubt(tmp_path: Path) -> None:
    write(tmp_path, vocab=LETTERS)
    message = refused(tmp_path, blank=7)
    assert "'<pad>' has id 0" in message
    assert "7" in message
    write(tmp_path, vocab={"a": 0, "|": 1})
    assert "no CTC blank" in refused(tmp_path, blank=None)
    assert "no CTC blank" in refused(tmp_path, blank=9)


def test_vocabulary_of_another_model(tmp_path: Path) -> None:
    assert '"\'"' in refused(write(tmp_path, vocab=LETTERS), vocab_size=7)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"vocab": [1, 2]},
        {"vocab": {"a": "0"}},
        {"vocab": {"a": True}},
        {"vocab": {"eng": {"a": None}}},
        {"vocab": LETTERS, "tokenizer_config": {"added_tokens_decoder": {"x": "<s>"}}},
        {"vocab": LETTERS, "tokenizer_config": {"added_tokens_decoder": [1]}},
        {"vocab": LETTERS, "tokenizer_config": "no object"},
        {"tokenizer": {"model": {}}},
        {"tokenizer": {"model": {"vocab": [["a"]]}}},
        {"tokenizer": {"model": {"vocab": {"a": 0}}, "added_tokens": [1]}},
        {"tokenizer": {"model": {"vocab": 3}}},
    ],
)
def test_broken_files_are_refused(tmp_path: Path, files: dict[str, Any]) -> None:
    assert str(tmp_path) in refused(write(tmp_path, **files), language="eng")


def test_text_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_bytes(b"\xff{")
    assert "vocab.json" in refused(tmp_path)


def test_a_letter_on_the_blank_belongs_to_another_model(tmp_path: Path) -> None:
    assert "names 'a' for id 0, which is the CTC blank" in refused(write(tmp_path, vocab={"a": 0, "|": 1, "b": 2}))


def test_a_vocabulary_without_letters_belongs_to_another_model(tmp_path: Path) -> None:
    assert "names no symbol that gives text" in refused(write(tmp_path, vocab={"<pad>": 0, "|": 1}))
