"""From a written text to the symbols that a model would spell it with, word by word, with wildcards for the rest.

A wildcard stands for a run of characters that the model has no symbol for, digits above all: whatever is said there,
the word gets its time. Punctuation that is not spoken stands for nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from runner.asr.alphabet import Alphabet

JOINS = "'-"  # spelled between two letters
SPOKEN_SIGNS = "%&@#§"  # read aloud, though Unicode counts them as punctuation
_FORMS = str.maketrans("’‘ʼ‐‑", "'''--")
_OUTER = re.compile(r"(?<![^\W\d_])['-]+|['-]+(?![^\W\d_])")
_WILD, _SKIPPED = 1000, 2  # symbols that a character without one counts for, and one that need not be spoken
_FAR = 200  # words, written and spoken, among which two texts are looked through for where they agree again
_BACK = 6  # words between a sign of currency and its word


@dataclass(frozen=True, kw_only=True, slots=True)
class Spelled:
    """One word as the model would write it. ``symbols`` may hold the wildcard; ``texts`` says what each stands for,
    "" for a sign that only begins a word."""

    word: str  # as written; several where they can only be spoken together
    spoken: str  # the words that are said for it
    symbols: tuple[int, ...]
    texts: tuple[str, ...]


class Speller:
    """Spells words in the symbols of one alphabet. The wildcard's id is one past the alphabet's last."""

    def __init__(self, alphabet: Alphabet) -> None:
        self.wildcard = len(alphabet.texts)
        bare = [id_ for id_ in alphabet.breaks if not alphabet.texts[id_]]
        self.delimiter = min(bare, default=None)
        spelled = {id_: text for id_, text in enumerate(alphabet.texts) if text}
        first = {text: id_ for id_, text in reversed(spelled.items()) if id_ in alphabet.breaks}
        later = {text: id_ for id_, text in reversed(spelled.items()) if id_ not in alphabet.breaks}
        self.apart = not first  # words are kept apart by the delimiter, not by how they begin
        self._first, self._later = first or later, later
        self._longest = max(map(len, spelled.values()))
        self._spell = lru_cache(maxsize=1 << 16)(self._spell_one)

    def spell(self, word: str, spoken: Sequence[str]) -> Spelled | None:
        """``word`` by the words that are said for it; None where nothing of it can be said."""
        symbols: list[int] = []
        texts: list[str] = []
        for part in spoken:
            found = self._spell(part)
            if found and symbols and self.apart and self.delimiter is not None:
                symbols.append(self.delimiter)
                texts.append("")
            symbols += (symbol for symbol, _ in found)
            texts += (text for _, text in found)
        if not symbols:
            return None
        return Spelled(word=word, spoken=" ".join(spoken), symbols=tuple(symbols), texts=tuple(texts))

    def _spell_one(self, word: str) -> tuple[tuple[int, str], ...]:
        """(symbol, characters) in order: the fewest wildcards, then the fewest symbols, then the longest first."""
        chars = spoken_signs(word)
        best: list[tuple[int, int, int | None]] = [(0, len(chars), None)]  # from each place on: (cost, next, symbol)
        for at in range(len(chars) - 1, -1, -1):
            ways = [self._without(chars, at, rest=best[-1][0])]
            for end in range(at + 1, min(len(chars), at + self._longest) + 1):
                ways += self._symbols(chars, at, end, rest=best[len(chars) - end][0])
            best.append(min(ways, key=lambda way: (way[0], -way[1])))
        return _merged(chars, best, wildcard=self.wildcard, opening=self._opening(chars, best))

    def _without(self, chars: str, at: int, *, rest: int) -> tuple[int, int, int | None]:
        skipped = chars[at] in JOINS or unicodedata.category(chars[at])[0] == "M"
        return rest + (_SKIPPED if skipped else _WILD), at + 1, None if skipped else self.wildcard

    def _symbols(self, chars: str, at: int, end: int, *, rest: int) -> list[tuple[int, int, int | None]]:
        table = self._later if at else self._first
        found = _lookup(table, chars[at:end])
        if found is None and not at and not self.apart and self.delimiter is not None:
            found = _lookup(self._later, chars[at:end])  # behind a sign that begins a word
            rest += 1
        return [] if found is None else [(rest + 1, end, found)]

    def _opening(self, chars: str, best: Sequence[tuple[int, int, int | None]]) -> int | None:
        """The sign that has to stand before the first symbol, for pieces that begin no word by themselves."""
        symbol = best[-1][2]
        inner = not self.apart and symbol not in {None, self.wildcard} and symbol not in self._first.values()
        return self.delimiter if chars and inner else None


def _lookup(table: dict[str, int], text: str) -> int | None:
    for form in (text, text.lower(), text.upper()):
        if form in table:
            return table[form]
    return None


def _merged(
    chars: str, best: Sequence[tuple[int, int, int | None]], *, wildcard: int, opening: int | None
) -> tuple[tuple[int, str], ...]:
    """The way through ``best``, with one wildcard for neighbours."""
    found: list[tuple[int, str]] = [] if opening is None else [(opening, "")]
    at = 0
    while at < len(chars):
        _, end, symbol = best[len(chars) - at]
        if symbol == wildcard and found and found[-1][0] == wildcard:
            found[-1] = (wildcard, found[-1][1] + chars[at:end])
        elif symbol is not None:
            found.append((symbol, chars[at:end]))
        at = end
    return tuple(found)


def spoken_signs(word: str) -> str:
    """``word`` without what is not spoken: letters, digits, symbols, and apostrophes and hyphens between letters."""
    chars = unicodedata.normalize("NFC", word.translate(_FORMS))
    return _OUTER.sub("", "".join(char for char in chars if char in JOINS or _spoken(char)))


def _spoken(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] in "LNM" or char in SPOKEN_SIGNS or category in {"Sc", "Sm", "So"}


def matched(text: str, say: Callable[[str], str] | None) -> list[tuple[str, tuple[str, ...]]]:
    """The words of ``text`` as written, each with the words that are said for it.

    ``say`` is a normaliser, None where words are said as written. What it says of the whole text counts, as a number
    may depend on its neighbours; words that only together give what is said are kept together (`R$ 5 mil`).
    """
    written = text.split()
    if say is None:
        return [(word, (word,)) for word in written]
    spoken = say(text).split()
    alone = [tuple(say(word).split()) for word in written]
    found: list[tuple[str, tuple[str, ...]]] = []
    at = to = 0
    while at < len(written) or to < len(spoken):
        if at < len(written) and _agree(alone, at, spoken, to):
            more, said = 1, len(alone[at])
        else:
            more, said = _passed_over(alone, at, spoken, to, least=0 if found else 1)
        if not more:
            _add(found, spoken[to : to + said])
        else:
            found.append((" ".join(written[at : at + more]), tuple(spoken[to : to + said])))
        at, to = at + more, to + said
    return found


def _add(found: list[tuple[str, tuple[str, ...]]], said: Sequence[str]) -> None:
    """Words that nothing was written for at this place belong to the last word, or to all since an unspoken sign."""
    signs = [at for at, (word, spoken) in enumerate(found) if not spoken and spoken_signs(word)]
    first = signs[-1] if signs and len(found) - signs[-1] <= _BACK else len(found) - 1
    together = found[first:]
    spoken = (*(word for _, words in together for word in words), *said)
    found[first:] = [(" ".join(word for word, _ in together), spoken)]


def _agree(alone: Sequence[tuple[str, ...]], at: int, spoken: Sequence[str], to: int) -> bool:
    return tuple(spoken[to : to + len(alone[at])]) == alone[at]


def _passed_over(
    alone: Sequence[tuple[str, ...]], at: int, spoken: Sequence[str], to: int, *, least: int
) -> tuple[int, int]:
    """How many written (``least`` or more) and spoken words to pass over until two words, or the ends, agree again."""
    written_left, spoken_left = len(alone) - at, len(spoken) - to
    for far in range(1, min(_FAR, written_left + spoken_left) + 1):
        for more in range(max(min(least, written_left), far - spoken_left), min(far, written_left) + 1):
            said = far - more
            if more == written_left and said == spoken_left:
                return more, said
            if more < written_left and alone[at + more] and _agree(alone, at + more, spoken, to + said):
                return more, said
    return written_left, spoken_left
