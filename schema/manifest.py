"""Manifests: tables that name recordings, one row each. Streamed, with every problem as file:line.

A table is `.jsonl`, `.csv` or `.tsv` (tab-separated, no quoting), or an audiofolder: a folder with `metadata.jsonl`,
`metadata.csv` or `metadata.tsv`. Columns beyond the ones below are ignored. A folder saved by the datasets package
(arrow files) is no table: see ``is_arrow``.
"""

# ruff: noqa: PTH110, PTH112, PTH113 - os.path says False where Path raises: a name too long, a folder closed to us

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import exists, isdir, isfile
from pathlib import Path
from typing import Any

from runner.schema.errors import Problem, SpecError

AUDIO = (
    "audio",
    "path",
    "file_name",
)  # the contract; transcripts.jsonl of another job; audiofolder. The first one present counts
TEXT = ("text", "transcription", "sentence")  # the contract; audiofolder; Common Voice
TABLES = (".jsonl", ".csv", ".tsv")
FOLDER_TABLES = ("metadata.jsonl", "metadata.csv", "metadata.tsv")
MAX_LINE_BYTES = 1 << 20
MAX_PROBLEMS = 20
MAX_SECONDS = 1e9  # 31 years: beyond is a slip, and sample counts would not fit


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One recording, or a stretch of one."""

    audio: Path  # absolute; need not exist
    text: str | None = None  # reference; "" is a reference of silence (in .csv and .tsv an empty cell is None)
    id: str | None = None
    start: float | None = None  # seconds
    end: float | None = None  # seconds
    line: int  # 1-based, in the table


def read(path: Path, *, root: Path | None = None) -> Iterator[Row]:
    """Yield the rows of a table or audiofolder in order.

    ``root`` is the folder that audio paths are relative to; without it the table's own folder. Bad rows are left out
    and reported together when the table is read to its end (at once after 20 of them), as one ``SpecError``.
    """
    table = table_of(path)
    base = os.path.abspath(root or table.parent)  # noqa: PTH100 (Path.resolve would follow links)
    problems: list[Problem] = []
    try:
        for line, record in _records(table):
            try:
                yield _row(record, line=line, base=base)
            except ValueError as error:
                problems.append(_problem(table, line, str(error)))
            if len(problems) == MAX_PROBLEMS:
                break
    except _TableError as error:
        problems.append(_problem(table, error.line, str(error)))
    except OSError as error:
        problems.append(_problem(table, 1, f"cannot be read: {error.strerror or error}"))
    if problems:
        raise SpecError(problems)


def table_of(path: Path) -> Path:
    """The table behind a manifest path: the file itself, or an audiofolder's metadata file."""
    if isdir(path):
        found = [path / name for name in FOLDER_TABLES if isfile(path / name)]
        if found:
            return found[0]
        what = "is saved by the datasets package, not a table" if is_arrow(path) else "holds no table"
        raise SpecError([_problem(path, 1, f"{what}; an audiofolder has one of {', '.join(FOLDER_TABLES)}")])
    if path.suffix.lower() not in TABLES:
        raise SpecError([_problem(path, 1, f"unknown manifest type {path.suffix!r}; known are {', '.join(TABLES)}")])
    if exists(path) and not isfile(path):  # to read a pipe would wait for ever, and twice it cannot be read
        raise SpecError([_problem(path, 1, "is no plain file (a pipe or a device); a table is read more than once")])
    return path


def shown(audio: Path, *, base: str, name: str) -> str:
    """``audio`` of a row as results and fingerprints show it: where ``name`` stands for the folder ``base``.

    ``base`` is absolute, the folder that audio paths are relative to; ``name`` is that folder as the user sees it. So
    a path that the user wrote relative stays relative, with `..` where it leaves the folder.
    """
    path, prefix = str(audio), base.rstrip("/") + "/"
    return os.path.normpath(f"{name}/{path[len(prefix) :]}" if path.startswith(prefix) else path)


def is_arrow(path: Path) -> bool:
    """Whether ``path`` is a folder written by ``Dataset.save_to_disk``, which only the datasets package can read."""
    return any(isfile(path / name) for name in ("state.json", "dataset_dict.json"))


class _TableError(Exception):
    """The table cannot be read further."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def _problem(table: Path, line: int, message: str) -> Problem:
    return Problem(file=str(table), line=line, column=1, path="", message=message, code="manifest")


def _records(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    suffix = table.suffix.lower()
    return _from_jsonl(table) if suffix == ".jsonl" else _from_csv(table, tabs=suffix == ".tsv")


def _lines(table: Path) -> Iterator[tuple[int, str]]:
    with table.open("rb") as file:
        for number, raw in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
            if len(raw) > MAX_LINE_BYTES:
                raise _TableError(number, "line longer than 1 MiB; a manifest has one short line per recording")
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _TableError(number, f"not UTF-8 text (byte {error.start + 1} of the line)") from None


def _from_jsonl(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, text in _lines(table):
        if text.isspace() or not text:
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else "number too long or nesting too deep"
            raise _TableError(
                number, f'not JSON: {what}; each line is one object such as {{"audio": "a.wav"}}'
            ) from None
        yield number, record if isinstance(record, dict) else {"": record}


def _from_csv(table: Path, *, tabs: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = (text for _, text in _lines(table))
    if tabs:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(lines, strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(header)
        for cells in reader:
            if cells:
                record: dict[str, Any] = {k: v for k, v in zip(header, cells, strict=False) if v}
                yield reader.line_num, record if len(cells) == len(header) else {"": (len(cells), len(header))}
    except csv.Error as error:
        raise _TableError(reader.line_num, f"not a table: {error}") from None


def _check_header(header: Sequence[str]) -> None:
    if not any(name in header for name in AUDIO):
        raise _TableError(
            1, f"no column 'audio' among {', '.join(map(repr, header)) or 'none'}; the first line names the columns"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise _TableError(1, f"column {twice[0]!r} is there twice")


def _row(record: dict[str, Any], *, line: int, base: str) -> Row:
    audio = _text(record, AUDIO)
    if not audio:
        raise ValueError(_why_no_audio(record))
    _check_path(audio)
    start, end = _seconds(record, "start"), _seconds(record, "end")
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"end: must be after start ({start or 0.0:g} s), got {end:g}")
    name = record.get("id")
    label = str(name) if type(name) is int else _text(record, ("id",))
    text = _text(record, TEXT)
    _check_utf8("id", label)
    _check_utf8("text", text)
    return Row(audio=Path(base, audio), text=text, id=label, start=start, end=end, line=line)


def _check_path(audio: str) -> None:
    if "\0" in audio:
        raise ValueError("audio: a path cannot hold a NUL character")
    try:
        os.fsencode(audio)  # bytes that are not UTF-8 may be in a file's name: "\udc80" to "\udcff" stand for them
    except UnicodeEncodeError as error:
        raise ValueError(f"audio: a path cannot hold {audio[error.start]!a}, half of a character") from None


def _check_utf8(name: str, value: str | None) -> None:
    try:
        (value or "").encode()
    except UnicodeEncodeError as error:
        half = ascii((value or "")[error.start])
        raise ValueError(f"{name}: {half} is half of a character; write the character itself") from None


def _why_no_audio(record: dict[str, Any]) -> str:
    odd = record.get("")
    if isinstance(odd, tuple):
        return f"{odd[0]} cells, but the first line names {odd[1]} columns"
    if "" in record and len(record) == 1:
        return f'must be an object such as {{"audio": "a.wav"}}, got {type(odd).__name__}'
    return "audio: required, the path of a recording"


def _text(record: dict[str, Any], names: Sequence[str]) -> str | None:
    for name in names:
        value = record.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise ValueError(f"{name}: must be text, got {type(value).__name__}")
        return value
    return None


def _seconds(record: dict[str, Any], name: str) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) or "_" in str(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= MAX_SECONDS:  # NaN is not
        raise ValueError(f"{name}: must be seconds from 0 to {MAX_SECONDS:.0f}, got {str(value)[:40]!r}")
    return number
