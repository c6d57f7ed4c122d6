"""`.txt`: documents with an empty line between them. Lines inside a document stay lines."""

from __future__ import annotations

from pathlib import Path

from runner.llm.data.readers import lines
from runner.llm.data.readers.row import MAX_BYTES, Row, Rows

TOO_LONG = f"document too long: more than {MAX_BYTES >> 20} MiB without an empty line"


def records(path: Path, begin: int) -> Rows:
    """Each document as `text`; its line is its first one."""
    row = 0
    document = _Document()
    for number, line in lines.of(path):
        if line is None or line.strip(b" \t\r\n\x0b\x0c" + (b"\xef\xbb\xbf" if number == 1 else b"")):
            document.add(number, line)
        elif document.line:
            if row >= begin:
                yield document.row()
            row += 1
            document = _Document()
    if document.line:
        if row >= begin:
            yield document.row()
        row += 1
    return row


class _Document:
    """Lines up to the next empty one."""

    def __init__(self) -> None:
        self.line = 0
        self._texts: list[str] = []
        self._bytes = 0
        self._reason = ""

    def add(self, number: int, line: bytes | None) -> None:
        """Another line; after the first broken one none is kept."""
        self.line = self.line or number
        self._bytes += MAX_BYTES + 1 if line is None else len(line)
        if line is None or self._bytes > MAX_BYTES:
            self._reason = self._reason or TOO_LONG
        if self._reason or line is None:
            self._texts = []
            return
        try:
            self._texts.append(lines.text(line, first=number == 1).rstrip("\r\n"))
        except ValueError as error:
            self._reason = str(error)

    def row(self) -> Row:
        """The document, or why there is none."""
        return Row(self.line, self._reason or {"text": "\n".join(self._texts)})
