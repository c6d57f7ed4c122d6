"""`.csv` and `.tsv`: the first line names the columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from runner.llm.data.readers import lines
from runner.llm.data.readers.row import MAX_BYTES, Row, Rows, UnreadableError


def csv_records(path: Path, begin: int) -> Rows:
    """Cells between commas, quoted where they need to be; empty lines are no rows."""
    return (yield from _records(path, begin, tabs=False))


def tsv_records(path: Path, begin: int) -> Rows:
    """Cells between tabs, where a quote is a character like others."""
    return (yield from _records(path, begin, tabs=True))


def _records(path: Path, begin: int, *, tabs: bool) -> Rows:
    csv.field_size_limit(MAX_BYTES)  # of the whole process; 128 KiB otherwise
    source = _Lines(path)
    if tabs:
        reader = csv.reader(source, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(source, strict=True)
    header = _header(reader)
    row = 0
    while True:
        line = source.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return row
        except (csv.Error, ValueError) as error:
            found: str | list[str] = f"not a table: {error}" if isinstance(error, csv.Error) else str(error)
        else:
            if not cells:
                continue
            found = cells
        if row >= begin:
            yield Row(line, _record(found, header))
        row += 1


def _header(reader: Iterator[list[str]]) -> list[str]:
    try:
        header = [cell.strip() for cell in next(reader, [])]
    except (csv.Error, ValueError) as error:
        raise UnreadableError(f"its first line, which names the columns: {error}") from None
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or not header:
        raise UnreadableError(f"its first line names {f'{twice[0]!r} twice' if twice else 'no column'}")
    return header


def _record(found: str | list[str], header: list[str]) -> dict[str, str] | str:
    if isinstance(found, str):
        return found
    if len(found) != len(header):
        return f"wrong number of cells: {len(found)}, but the first line names {len(header)} columns"
    return dict(zip(header, found, strict=True))


class _Lines:
    """Lines as text; after one that is broken the next can be asked for, which no generator could do."""

    def __init__(self, path: Path) -> None:
        self._lines = lines.of(path)
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        if line is None:
            raise ValueError(lines.TOO_LONG)
        return lines.text(line, first=self.number == 1)
