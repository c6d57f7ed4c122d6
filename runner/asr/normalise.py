"""What two texts must share to count as equal: two conventions, both always reported.

`accent-sensitive` is for the language: NFC, lower case, punctuation and symbols become spaces, accents stay (`avó` is
not `avô`). An apostrophe or a hyphen stays between two letters or digits (`d'água`, `guarda-chuva`, `disse-me`), so
writing such a word apart is an error; a dash is a space.
`leaderboard` follows the Open ASR Leaderboard's multilingual normaliser, for figures to set beside published ones:
lower case, spans in <>, [] and () removed, NFKD, accents dropped, punctuation and symbols to spaces.

Neither spells out numbers, abbreviations or currency: digits are compared as digits, so against a model that writes
`vinte e dois` a reference with `22` counts as wrong. A changed convention gets a new version: results carry it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

_APOSTROPHES = dict.fromkeys(map(ord, "’‘ʼ′`´＇"), "'")
_HYPHENS = dict.fromkeys(map(ord, "‐‑−－"), "-")
_OUTER = re.compile(r"(?<!\w)['-]|['-](?!\w)")  # apostrophes and hyphens that join nothing
_SPANS = re.compile(r"<[^<>]*>|\[[^\[\]]*\]|\([^()]*\)")
_LETTERS = {  # one letter to the eye that NFKD does not take apart
    ord(letter): plain
    for letter, plain in (
        *zip("æœøłđðħıŧ", ("ae", "oe", "o", "l", "d", "d", "h", "i", "t"), strict=True),
        ("ß", "ss"),
        ("þ", "th"),
    )
}


@dataclass(frozen=True, kw_only=True)
class Convention:
    """A named way to make texts comparable; ``version`` changes when its output does."""

    name: str
    version: int
    apply: Callable[[str], str]

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


class _Signs(dict[int, str | None]):
    """What becomes of each character, worked out when it first appears: str.translate then runs in C."""

    def __init__(self, *, marks: bool, kept: str = "") -> None:
        super().__init__()
        self._marks = marks  # combining marks stay
        self._kept = kept

    def __missing__(self, code: int) -> str | None:
        self[code] = sign = self._of(chr(code))
        return sign

    def _of(self, char: str) -> str | None:
        category = unicodedata.category(char)
        if char in self._kept:
            return char
        if category == "Cf":  # zero-width joiners, soft hyphens: not seen, so not compared
            return None
        if category[0] == "M":
            return char if self._marks else None
        return " " if category[0] in "PSZC" else char


_LANGUAGE = _Signs(marks=True, kept="'-")
_PLAIN = _Signs(marks=False)


def accent_sensitive(text: str) -> str:
    """`Disse-me: «Água D’Oeste — é boa!»` to `disse-me água d'oeste é boa`."""
    text = unicodedata.normalize("NFC", text.lower()).translate(_APOSTROPHES).translate(_HYPHENS).translate(_LANGUAGE)
    return " ".join(_OUTER.sub(" ", text).split())


def leaderboard(text: str) -> str:
    """`[risos] O avô (sic) disse-me!` to `o avo disse me`."""
    text = _SPANS.sub(" ", text.lower()).translate(_LETTERS)
    return " ".join(unicodedata.normalize("NFKD", text).translate(_PLAIN).split())


ACCENT_SENSITIVE = Convention(name="accent-sensitive", version=1, apply=accent_sensitive)
LEADERBOARD = Convention(name="leaderboard", version=1, apply=leaderboard)
