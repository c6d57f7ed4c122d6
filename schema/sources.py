"""The files that a list of files, folders and `-` stands for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os.path import lexists, realpath
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TextIO

from runner.schema.errors import Problem
from runner.schema.syntax import MAX_BYTES
from runner.schema.words import did_you_mean, problem

START = (1, 1)  # the place of what has none
SUFFIXES = (".yaml", ".yml")
MAX_FILES = 10_000  # of one call: `runner validate /` is a mistake


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file, read."""

    file: str  # as the user wrote it, or the folder they wrote and the rest; "-" for stdin
    folder: Path  # absolute; what its relative paths refer to
    data: bytes  # at most MAX_BYTES + 1


def read(sources: Sequence[str], stdin: TextIO | None, problems: list[Problem]) -> Iterator[Source]:
    """Each file once, in the order given, folders sorted; what cannot be read goes to ``problems``."""
    seen: set[str] = set()
    for file in _files(sources, problems):
        identity = file if file == "-" else realpath(file)
        if identity in seen:
            continue
        seen.add(identity)
        if len(seen) > MAX_FILES:
            what = f"more than {MAX_FILES:,} spec files in one set"
            problems.append(problem(file, START, "too-much", what, hint="name a smaller folder"))
            return
        try:
            yield _read_stdin(stdin) if file == "-" else _read_file(file)
        except OSError as error:
            what = f"the file cannot be read: {error.strerror}"
            problems.append(problem(file, START, "unreadable", what, hint="check its path and permissions"))


def _files(sources: Sequence[str], problems: list[Problem]) -> Iterator[str]:
    for source in sources:
        if source != "-" and _is_folder(source):
            yield from _in_folder(source, problems)
        elif source == "-" or lexists(source):
            yield source
        else:
            hint = _neighbour(source) or "check the path"
            problems.append(problem(source, START, "not-found", "no such file or folder", hint=hint))


def _is_folder(source: str) -> bool:
    try:
        return S_ISDIR(Path(source).stat().st_mode)
    except OSError:
        return False  # missing, closed to us or no possible name: reading it will say which


def _in_folder(source: str, problems: list[Problem]) -> Iterator[str]:
    def closed(error: OSError) -> None:
        what = f"the folder cannot be read: {error.strerror}"
        problems.append(problem(str(error.filename), START, "unreadable", what, hint="check its permissions"))

    found = False
    for folder, folders, names in os.walk(source, onerror=closed):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(n for n in names if n.endswith(SUFFIXES) and not n.startswith(".")):
            found = True
            yield str(Path(folder, name))
    if not found:
        what = "the folder holds no spec, neither *.yaml nor *.yml"
        problems.append(problem(source, START, "no-specs", what, hint="`runner init` writes one"))


def _read_file(file: str) -> Source:
    with Path(file).open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
        is_file = S_ISREG(os.fstat(stream.fileno()).st_mode)
    # a pipe (`<(...)`) has no folder worth the name
    folder = Path.cwd().joinpath(file).parent if is_file else Path.cwd()
    return Source(file=file, folder=folder, data=data)


def _read_stdin(stdin: TextIO | None) -> Source:
    if stdin is None:
        data = b""
    elif hasattr(stdin, "buffer"):
        data = stdin.buffer.read(MAX_BYTES + 1)
    else:
        data = stdin.read(MAX_BYTES + 1).encode("utf-8", "surrogatepass")
    return Source(file="-", folder=Path.cwd(), data=data)


def _neighbour(source: str) -> str:
    path = Path(source)
    try:
        return did_you_mean(path.name, [entry.name for entry in islice(path.parent.iterdir(), 1000)])
    except OSError:
        return ""
