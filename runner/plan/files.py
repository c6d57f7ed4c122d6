"""Which files a spec means: patterns and folders expanded, manifests read.

A file is told by the path that goes into results and fingerprints: relative to the spec's folder, so that moving the
folder changes nothing, and absolute only where the user wrote an absolute path.
"""

# ruff: noqa: PTH110, PTH112, PTH113 - os.path says False where Path raises: a name too long, a folder closed to us

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from os.path import exists, isdir, isfile, normpath
from pathlib import Path

from runner.schema import manifest
from runner.schema.errors import PlanError, SpecError

# what a folder is searched for; a pattern takes whatever it matches
AUDIO = frozenset({
    ".aac", ".aif", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp2", ".mp3",
    ".mp4", ".oga", ".ogg", ".opus", ".spx", ".wav", ".weba", ".webm", ".wma",
})  # fmt: skip
MAGIC = frozenset("*?[")

Place = tuple[str, Path]  # a file as results and fingerprints show it, and where it lies


class NoMatchError(PlanError):
    """A pattern without a file; ``index`` is its place in the list."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


def expand(patterns: Sequence[str], *, folder: Path) -> tuple[str, ...]:
    """Files that ``patterns`` (files, globs, folders) mean, sorted, each once. ``folder`` is the spec's, absolute."""
    found: set[str] = set()
    for index, pattern in enumerate(patterns):
        if pattern.startswith("artifact:"):
            raise NoMatchError(index, f"takes files, patterns and folders, not {pattern!r}")
        matches = set(_matches(pattern, folder))
        if not matches:
            raise NoMatchError(index, _nothing(pattern, folder))
        found |= matches
    return tuple(sorted(found))


def _matches(pattern: str, folder: Path) -> Iterator[str]:
    path = folder / pattern
    if isfile(path):  # first of all: a file may be called `take[1].wav`
        yield normpath(pattern)
    elif isdir(path):
        yield from _audio_in(pattern, path)
    elif MAGIC & set(pattern):
        matches = glob.iglob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207 (relative results are wanted)
        yield from (normpath(match) for match in matches if isfile(folder / match))


def _audio_in(shown: str, path: Path) -> Iterator[str]:
    for at, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(at, path)
        for name in names:
            if os.path.splitext(name)[1].lower() in AUDIO and not name.startswith("."):  # noqa: PTH122 (100,000 names)
                yield normpath(f"{shown}/{inside}/{name}")


def _nothing(pattern: str, folder: Path) -> str:
    path = folder / pattern
    if isdir(path):
        return f"folder {pattern!r} holds no audio file (looked at {str(path)!r} and below)"
    if MAGIC & set(pattern):
        return f"no file matches {pattern!r} (looked in {str(folder)!r})"
    return f"{pattern!r} does not exist (looked in {str(folder)!r})"


def of_manifest(table: Path, *, root: str | None, folder: Path) -> tuple[str, ...]:
    """Audio files that a manifest names, in order of first appearance, each once; they need not exist.

    ``table`` is absolute or relative to ``folder``, and so is ``root``. For a folder of the datasets package, which
    only that package can read, the files of the folder itself. Raises PlanError, or SpecError with every bad row.
    """
    path = folder / table
    if not exists(path):
        raise PlanError(f"manifest {str(table)!r} does not exist (looked in {str(folder)!r})")
    if manifest.is_arrow(path):
        return tuple(sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()))
    name = normpath(root if root is not None else table if isdir(path) else table.parent)
    base = os.path.abspath(folder / name)  # noqa: PTH100 (Path.resolve would follow links)
    rows = manifest.read(_table_of(path, table), root=Path(base))
    found = tuple(dict.fromkeys(manifest.shown(row.audio, base=base, name=name) for row in rows))
    if not found:
        raise PlanError(f"manifest {str(table)!r} names no recording; it needs one row for each")
    return found


def _table_of(path: Path, shown: Path) -> Path:
    try:
        return manifest.table_of(path)
    except SpecError as error:  # nothing in it to point at
        raise PlanError(f"manifest {str(shown)!r}: {error.problems[0].message}") from None
