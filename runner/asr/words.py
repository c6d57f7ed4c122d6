"""From spelled symbols on the frame grid to words with times and confidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.asr.alphabet import Alphabet


@dataclass(frozen=True, kw_only=True, slots=True)
class Char:
    """One symbol of a word; a piece of several letters for models that spell in pieces. Times in seconds."""

    char: str
    start: float
    end: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """One word. Times in seconds; ``end`` is one past the last frame of its last symbol."""

    word: str
    start: float
    end: float
    confidence: float
    chars: tuple[Char, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Path:
    """Symbols in order, collapsed, blanks dropped: ids and the half-open frame span of each. Shape [symbols]."""

    ids: NDArray[np.intp]
    first: NDArray[np.intp]
    last: NDArray[np.intp]  # one past the last frame


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """The symbols of one word and the frames that they take."""

    symbols: tuple[tuple[str, int, int], ...]  # (text, first frame, one past the last frame)

    @property
    def first(self) -> int:
        return self.symbols[0][1]

    @property
    def last(self) -> int:
        return self.symbols[-1][2]

    def text(self, *, lower: bool) -> str:
        word = "".join(text for text, _, _ in self.symbols)
        return word.lower() if lower else word


def spans(path: Path, *, alphabet: Alphabet) -> Iterator[Span]:
    """Words of a path, in order; symbols without text belong to none."""
    word: list[tuple[str, int, int]] = []
    for id_, first, last in zip(path.ids.tolist(), path.first.tolist(), path.last.tolist(), strict=True):
        if id_ in alphabet.breaks and word:
            yield Span(symbols=tuple(word))
            word = []
        if alphabet.texts[id_]:
            word.append((alphabet.texts[id_], first, last))
    if word:
        yield Span(symbols=tuple(word))
