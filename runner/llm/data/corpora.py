"""A corpus: files of rows, read as samples, a few at a time."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.llm.data.detect import FIRST, FORMATS, columns, detect, listed, why
from runner.llm.data.readers import arrow, json_array, jsonl, parquet, plain, table
from runner.llm.data.readers.row import Row, UnreadableError
from runner.llm.data.readers.row import Rows as RowsOfFile
from runner.llm.data.sample import BrokenSampleError, Sample
from runner.llm.data.skipped import Skipped
from runner.schema.errors import JobError

READERS = {
    ".jsonl": jsonl.records,
    ".ndjson": jsonl.records,
    ".json": json_array.records,
    ".parquet": parquet.records,
    ".csv": table.csv_records,
    ".tsv": table.tsv_records,
    ".txt": plain.records,
}
LOOKED_AT = (
    1000  # rows, for the first that can be read: a file of another kind is not read to its end in search of them
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a corpus is and how to read it."""

    name: str  # as people wrote it, for messages
    files: tuple[Path, ...]  # absolute, in order; a folder of `save_to_disk` is one
    split: str = "train"  # of a folder that has several
    format: str | None = None  # None: told by the columns
    columns: Mapping[str, str]  # the format's own column names by those of the files
    weight: float = 1.0
    folder: Path | None = None  # of the spec: files below it are shown relative to it, so that places are unique


class Rows:
    """The rows of a corpus as samples."""

    def __init__(self, source: Source, *, skipped: Skipped) -> None:
        self.source = source
        self._skipped = skipped
        self._first_broken = ""
        first = self._first()
        self.format: str = source.format or detect(first, name=source.name)
        self.why: str = why(self.format, first)
        self._sample = FORMATS[self.format].sample

    def about(self) -> int:
        """About how many rows there are, at least 1: what shares of a stream are made of. Exact for Parquet and arrow.

        Elsewhere the bytes of the first rows of a file say how many the others are.
        """
        return max(1, round(sum(map(self._about, self.source.files))))

    def samples(self, begin: int = 0) -> Iterator[tuple[int, Sample]]:
        """(Number of the row in the corpus, sample) from row ``begin`` on, whatever lay before.

        Broken rows go to ``skipped``, once however often they are read, and have numbers too. Raises JobError where a
        file cannot be read, and, read from its first row, where nothing is left.
        """
        kept = read = 0
        for number, (place, row) in enumerate(self._rows(begin), start=begin):
            read += 1
            try:
                if isinstance(row.record, str):
                    raise BrokenSampleError(row.record)
                found = self._sample(self._renamed(row.record), place=place)
            except BrokenSampleError as error:
                self._first_broken = self._first_broken or f"{place}: {error}"
                self._skipped.add(place, str(error))
                continue
            kept += 1
            yield number, found
        if not kept and not begin:
            raise self._none_left(f"none of its {read:,} rows can be used", self._first_broken)

    def _rows(self, begin: int) -> Iterator[tuple[str, Row]]:
        """Rows of all files from number ``begin`` on, each with its place."""
        for file in self.source.files:
            begin -= yield from self._of_file(file, max(begin, 0))

    def _of_file(self, file: Path, begin: int) -> Generator[tuple[str, Row], None, int]:
        shown = _shown(file, self.source)
        try:
            reader = _reader(file)(_of_split(file, self.source.split), begin)
            while True:
                row = next(reader)
                yield f"{shown}:{row.line}", row
        except StopIteration as end:
            return int(end.value)
        except (UnreadableError, OSError) as error:
            reason = (error.strerror or error) if isinstance(error, OSError) else error
            raise JobError(f"{self.source.name}: {shown!r} cannot be read: {reason}", failure="DataInvalid") from error

    def _about(self, file: Path) -> float:
        if file.is_dir() or file.suffix.lower() == ".parquet":
            return _length(self._of_file(file, sys.maxsize))
        rows = [row.record for _, row in itertools.islice(self._of_file(file, 0), LOOKED_AT)]
        read = sum(len(json.dumps(record, ensure_ascii=False).encode(errors="replace")) + 1 for record in rows)
        return len(rows) if len(rows) < LOOKED_AT else file.stat().st_size * len(rows) / read

    def _renamed(self, record: dict[str, Any]) -> dict[str, Any]:
        names = self.source.columns
        named = {names[name]: value for name, value in record.items() if name in names}
        return {name: value for name, value in record.items() if name not in names} | named

    def _first(self) -> list[dict[str, Any]]:
        """The first rows that can be read. Raises JobError for a column to be renamed that none of many rows has."""
        found: list[dict[str, Any]] = []
        unseen = dict.fromkeys(self.source.columns)  # a column that few rows have may come after the first of them
        broken = ""
        for place, row in itertools.islice(self._rows(0), LOOKED_AT):
            if isinstance(row.record, str):
                broken = broken or f"{place}: {row.record}"
                continue
            unseen = dict.fromkeys(name for name in unseen if name not in row.record)
            if len(found) < FIRST:
                found.append(row.record)
            if len(found) == FIRST and not unseen:
                break
        if not found:
            raise self._none_left("its first rows cannot be read" if broken else "it has no row", broken)
        if unseen:
            raise JobError(
                f"{self.source.name}: columns names {listed(unseen)}, which its first rows do not have; they have "
                f"{listed(columns(found))}",
                failure="DataInvalid",
            )
        return [self._renamed(record) for record in found]

    def _none_left(self, what: str, first: str) -> JobError:
        return JobError(
            f"{self.source.name}: {what}" + (f"; the first: {first}" if first else ""), failure="DataInvalid"
        )


def _length(rows: Generator[Any, None, int]) -> int:
    """How many rows a file has whose rows all lie before those asked for."""
    try:
        next(rows)
    except StopIteration as end:
        return int(end.value)
    raise AssertionError("a file of more rows than there are numbers")


def _reader(file: Path) -> Callable[[Path, int], RowsOfFile]:
    if file.is_dir():
        return arrow.records
    found = READERS.get(file.suffix.lower())
    if found is None:
        raise UnreadableError(f"unknown type {file.suffix!r}; known are {', '.join(READERS)}")
    return found


def _of_split(file: Path, split: str) -> Path:
    """The folder of ``split`` in a folder that has several."""
    if not (file / "dataset_dict.json").is_file():
        return file
    if not (file / split / "state.json").is_file():
        names = sorted(found.parent.name for found in file.glob("*/state.json"))
        raise UnreadableError(f"it has no split {split!r}; it has {', '.join(names)}")
    return file / split


def _shown(file: Path, source: Source) -> str:
    """What people know the file by."""
    if source.name.startswith("artifact:"):
        return source.name
    if source.folder is not None and file.is_relative_to(source.folder):
        return str(file.relative_to(source.folder))
    inside = os.path.relpath(file, os.path.commonpath([one.parent for one in source.files]))
    return f"{source.name.partition('#')[0]}/{inside}" if source.name.startswith("hf:") else inside


def open(source: Source, *, skipped: Skipped) -> Rows:  # noqa: A001 (corpora.open)
    """The rows of ``source``, its format known. Raises JobError, also where the format cannot be told."""
    return Rows(source, skipped=skipped)
