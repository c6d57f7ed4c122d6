"""Lines of a text file, none of which is held when it is longer than a row may be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runner.llm.data.readers.row import MAX_BYTES

TOO_LONG = f"line too long: more than {MAX_BYTES >> 20} MiB; a row is one short line"


def of(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Number from 1 and bytes of each line; None for one that is too long."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_BYTES + 1):
            number += 1
            if len(line) <= MAX_BYTES:
                yield number, line
                continue
            while line and not line.endswith(b"\n"):
                line = file.readline(1 << 20)
            yield number, None


def text(line: bytes, *, first: bool) -> str:
    """A line as text. Raises ValueError with the reason."""
    try:
        return line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte {error.start + 1} of the line") from None
