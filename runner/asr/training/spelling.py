"""From texts to ids of a CTC head and back to files: the vocabulary that a model is trained to write."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.asr.alphabet import Alphabet
from runner.schema.errors import JobError

PAD, START, END, UNKNOWN, BETWEEN = "<pad>", "<s>", "</s>", "<unk>", "|"
SPECIAL = (PAD, START, END, UNKNOWN, BETWEEN)  # the head's first rows; the blank is row 0
TOKENIZER: Mapping[str, Any] = {
    "tokenizer_class": "Wav2Vec2CTCTokenizer",
    "processor_class": "Wav2Vec2Processor",
    "pad_token": PAD,
    "bos_token": START,
    "eos_token": END,
    "unk_token": UNKNOWN,
    "word_delimiter_token": BETWEEN,
    "replace_word_delimiter_char": " ",
    "do_lower_case": False,
}
MOST_CHARACTERS = 10_000  # beyond it the texts are not what they should be


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """Which id stands for which character. ``alphabet`` reads what ``ids`` writes."""

    characters: Mapping[str, int]
    between: int | None  # between words; None: the model writes words without spaces
    alphabet: Alphabet

    def ids(self, text: str, *, ends: bool = False) -> list[int]:
        """The labels of ``text``; a character that the head lacks gives none. ``ends``: and a space at the end."""
        words = text.split()
        found = (self._id(character) for character in " ".join([*words, ""] if ends and words else words))
        return [one for one in found if one is not None]

    def unknown(self, texts: Iterable[str]) -> Counter[str]:
        """Characters of ``texts`` that the head lacks, and how often they occur."""
        counts = Counter[str]()
        for text in texts:
            counts.update("".join(text.split()))
        return Counter({character: count for character, count in counts.items() if self._id(character) is None})

    def _id(self, character: str) -> int | None:
        if character == " ":
            return self.between
        for form in (character, character.lower(), character.upper()):  # a model that writes capitals only, or none
            if form in self.characters:
                return self.characters[form]
        return None


def kept(alphabet: Alphabet, *, name: str) -> Spelling:
    """The spelling of a model as it is. Raises JobError (ModelInvalid) for models that spell in pieces of words."""
    if any(alphabet.texts[id_] for id_ in alphabet.breaks):
        raise JobError(f"{name} spells in pieces of words, and only characters can be trained", failure="ModelInvalid")
    return Spelling(
        characters={text: id_ for id_, text in enumerate(alphabet.texts) if len(text) == 1},
        between=min(alphabet.breaks, default=None),
        alphabet=alphabet,
    )


def built(texts: Iterable[str], *, why: str) -> Spelling:
    """A new spelling with the characters of ``texts`` in their order, behind the special rows."""
    found = sorted({character for text in texts for character in text if not character.isspace()} - {BETWEEN})
    if not 0 < len(found) <= MOST_CHARACTERS:
        raise JobError(f"{why} hold {len(found)} characters; 1 to {MOST_CHARACTERS} are allowed", failure="DataInvalid")
    characters = {character: len(SPECIAL) + place for place, character in enumerate(found)}
    texts_by_id = ("",) * len(SPECIAL) + tuple(found)
    between = SPECIAL.index(BETWEEN)
    alphabet = Alphabet(texts=texts_by_id, breaks=frozenset({between}), blank=0)
    return Spelling(characters=characters, between=between, alphabet=alphabet)


def shared(old: Spelling, new: Spelling) -> dict[int, int]:
    """Rows of the new head that the old one has: new id -> old id, by what they stand for, never by position."""
    pairs = {id_: old.characters[text] for text, id_ in new.characters.items() if text in old.characters}
    pairs[new.alphabet.blank] = old.alphabet.blank
    if new.between is not None and old.between is not None:
        pairs[new.between] = old.between
    return pairs


def same(old: Spelling, new: Spelling) -> bool:
    """Whether both write the same characters."""
    return set(old.characters) == set(new.characters)


def write(new: Spelling, folder: Path) -> None:
    """The tokenizer's files of a ``built`` spelling, as every published wav2vec2 model has them."""
    vocabulary = {token: id_ for id_, token in enumerate(SPECIAL)} | dict(new.characters)
    write_json(folder / "vocab.json", vocabulary)
    write_json(folder / "tokenizer_config.json", dict(TOKENIZER))


def write_json(path: Path, content: Any) -> None:
    """``content`` in its own order, one key a line."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
