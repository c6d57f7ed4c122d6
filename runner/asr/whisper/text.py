"""Whisper's tokens: those that steer it, and words of the others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.schema.errors import JobError

UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})  # written without spaces: each symbol is a word
ENGLISH_ONLY = 51864  # tokens of the .en models; the others have more


@dataclass(frozen=True, kw_only=True, slots=True)
class Spelled:
    """Text and the half-open span of its tokens."""

    text: str
    first: int
    last: int


class Tokens:
    """The tokenizer of one model. Raises JobError (ModelInvalid) when it is none of whisper's."""

    def __init__(self, tokenizer: Any, model: Any, *, folder: str) -> None:
        self._tokenizer = tokenizer
        vocab: int = model.config.vocab_size
        ids: dict[str, int] = {
            found[1]: id_
            for text, id_ in tokenizer.get_vocab().items()
            if id_ < vocab and (found := re.fullmatch(r"<\|([a-z]+)\|>", text))
        }
        names = {name: id_ for name, id_ in sorted(ids.items()) if len(name) in {2, 3}}
        multilingual = getattr(model.generation_config, "is_multilingual", None)
        told = bool(names) and (vocab != ENGLISH_ONLY if multilingual is None else multilingual)
        self.languages: dict[str, int] = names if told else {}  # empty: English only
        needed = ["startoftranscript", "endoftext", "notimestamps", *(["transcribe"] if told else [])]
        missing = [f"<|{name}|>" for name in needed if name not in ids]
        if missing:
            raise JobError(
                f"the tokenizer of {folder} lacks {', '.join(missing)}: take the one that the model was trained with",
                failure="ModelInvalid",
            )
        self.start, self.end = ids["startoftranscript"], ids["endoftext"]
        self.special = range(self.end + 1, vocab)  # every id above the end's steers
        self._task = [ids["transcribe"]] if told else []
        self._no_times = ids["notimestamps"]

    def check(self, language: str | None) -> None:
        """Raises JobError (ModelInvalid) for a language that the model cannot be told."""
        if language is None or language in self.languages or (language == "en" and not self.languages):
            return
        known = f"is unknown to this model; it knows {', '.join(self.languages)}"
        what = known if self.languages else "is asked for, but this whisper model knows English only"
        raise JobError(f"decode.language {language!r} {what}", failure="ModelInvalid")

    def prompt(self, language: str | None) -> list[int]:
        """What the decoder is told first. Without time tokens: many fine-tuned models never saw them."""
        told = [self.languages[language]] if language and self.languages else []
        return [self.start, *told, *self._task, self._no_times]

    def text(self, row: Sequence[int]) -> list[int]:
        """The tokens of text before the end."""
        end = row.index(self.end) if self.end in row else len(row)
        return list(row[:end])

    def words(self, text: Sequence[int], *, language: str | None) -> list[Spelled]:
        """Words with the space before and the punctuation behind them.

        A space is put before the first too, where the language has spaces: a text may begin without one, and would be
        glued to what the window before it said.
        """
        spaces = language not in UNSPACED
        words: list[Spelled] = []
        for symbol in self._symbols(text):
            opens = symbol.text[:1].isspace() if spaces else any(c.isalnum() for c in symbol.text)
            if opens or not words:
                words.append(symbol)
            else:
                words[-1] = Spelled(text=words[-1].text + symbol.text, first=words[-1].first, last=symbol.last)
        words = [word for word in words if word.text.strip()]
        if spaces and words and not words[0].text[0].isspace():
            words[0] = replace(words[0], text=f" {words[0].text}")
        return words

    def _symbols(self, text: Sequence[int]) -> Iterator[Spelled]:
        """The shortest runs of tokens that are whole letters: a token may hold only some of a letter's bytes."""
        first = 0
        for last in range(1, len(text) + 1):
            letters = self._tokenizer.decode(text[first:last], clean_up_tokenization_spaces=False)
            if not letters.endswith("\N{REPLACEMENT CHARACTER}") or last == len(text):
                yield Spelled(text=letters, first=first, last=last)
                first = last
