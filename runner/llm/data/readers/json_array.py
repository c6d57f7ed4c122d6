"""`.json`: an array of objects, read piece by piece, or JSON lines under another name."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any, BinaryIO

from runner.llm.data.readers import jsonl
from runner.llm.data.readers.row import MAX_BYTES, Row, Rows, UnreadableError

PIECE = 1 << 20  # bytes read at a time
SPACE = " \t\r\n"
WAY_OUT = "; nothing after it can be read: write one object a line (.jsonl), where a broken row stands alone"
NEAR_END = 16  # characters: an error so close to what was read last may be the next piece's lack


def records(path: Path, begin: int) -> Rows:
    """The elements of the array. Raises UnreadableError where it breaks: nobody knows where its next element begins."""
    with path.open("rb") as file:
        text = _Text(file)
        if text.next() != "[":
            return (yield from jsonl.records(path, begin))
        text.take()
        row = 0
        while text.next() != "]":
            if row:
                text.expect(",")
            found, escaped = text.element(row + 1)
            if row >= begin:
                yield Row(row + 1, jsonl.checked(found, escaped=escaped))
            row += 1
    return row


class _Text:
    """What was read and not yet used of a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._ended = False
        self._found: Any = None  # the last element

    def next(self) -> str:
        """The next character that is no white space, "" at the end; it stays."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in SPACE:
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more(PIECE)

    def take(self) -> None:
        """Go on behind the next character."""
        self._at += 1

    def expect(self, sign: str) -> None:
        """Go on behind ``sign``, which must come next."""
        if (found := self.next()) != sign:
            raise UnreadableError(f"the array has {found!r} where {sign!r} should stand" if found else "it breaks off")
        self.take()

    def element(self, number: int) -> tuple[Any, bool]:
        """The next element, and whether it has escapes."""
        size = PIECE
        self.next()
        while (end := self._end(number)) is None:
            if len(self._text) - self._at > MAX_BYTES:
                break
            self._more(size)
            size *= 2  # so that a long element is not tried again for each piece of it
        if end is None or end - self._at > MAX_BYTES:
            raise UnreadableError(f"element {number} has more than {MAX_BYTES >> 20} MiB{WAY_OUT}")
        escaped = "\\u" in self._text[self._at : end]
        self._at = end
        return self._found, escaped

    def _end(self, number: int) -> int | None:
        """Where the element ends that begins here; None where more of the file may be needed to tell."""
        try:
            self._found, end = self._json.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            open_string = error.msg.startswith("Unterminated string")
            if self._ended or not (open_string or error.pos >= len(self._text) - NEAR_END):
                raise UnreadableError(f"element {number} is not JSON: {error.msg}{WAY_OUT}") from None
            return None
        except (RecursionError, ValueError):
            raise UnreadableError(f"element {number} is nested too deep, or has a number too long{WAY_OUT}") from None
        return end if end < len(self._text) or self._ended else None

    def _more(self, size: int) -> None:
        piece = self._file.read(size)
        self._ended = not piece
        try:
            self._text = self._text[self._at :] + self._decoder.decode(piece, final=self._ended)
        except UnicodeDecodeError:
            raise UnreadableError("it is not UTF-8 text") from None
        self._at = 0
