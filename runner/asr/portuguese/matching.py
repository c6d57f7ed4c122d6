"""Where a word begins and ends in running text, and how words take the place of a match."""

from __future__ import annotations

import re
import unicodedata

START = r"(?<![^\W0-9_])"  # a digit ends a word, as numbers are read apart from letters: `5kg`
END = r"(?![^\W0-9_])"


def put(match: re.Match[str], words: str) -> str:
    """``words`` for the match, with a space wherever they would grow together with what stands beside it."""
    text = match.string
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    return f"{' ' if _joins(before) else ''}{words}{' ' if _joins(after) else ''}"


def _joins(char: str) -> bool:
    return bool(char) and (char.isalnum() or unicodedata.category(char)[0] == "M")
