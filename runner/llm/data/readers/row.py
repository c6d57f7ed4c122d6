"""A row of a file before anybody asks what it means."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

MAX_BYTES = 8 * 2**20  # of a row: five books; a line that goes on and on is a broken file, and must not fill the memory


class Row(NamedTuple):
    """``record`` is what was read, or the reason why nothing could be."""

    line: int  # 1-based: of the file where it has lines, else the row's number
    record: dict[str, Any] | str


Rows = Generator[Row, None, int]  # returns how many rows the file has


class UnreadableError(ValueError):
    """A file that cannot be read any further; the text is the reason."""
