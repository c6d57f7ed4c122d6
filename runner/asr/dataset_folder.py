"""Recordings of a folder saved by the datasets package: only read, row by row, never decoded by that package.

The package decodes audio with torchcodec, which need not be there; asked not to, it gives a file's bytes or its path.
Bytes are unpacked to files, for all that follows reads files. A file that is only named by its path is no part of the
folder: a plan does not see it change.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from runner.schema import manifest
from runner.schema.errors import JobError

SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row: where its recording lies now, and what it is called in results."""

    path: str  # absolute
    shown: str  # unique
    text: str | None  # reference


def rows(folder: Path, *, name: str, root: Path | None, unpacked: Path) -> Iterator[Row]:
    """Every row in order, the splits of a `DatasetDict` one after the other. ``name`` is the folder's, as it is shown.

    Bytes are written once, below ``unpacked``, and shown as `<name>/<row number><suffix>`. Paths are taken as they
    are, relative to ``root`` or the folder, and shown by their last part, or like bytes where that was shown before.
    Memory holds these names and a few rows. Raises JobError.
    """
    seen: set[str] = set()
    for split, data in _splits(folder):
        for number, (stored, content, text) in enumerate(_records(folder, data)):
            file = f"{number}{_suffix(stored)}"
            last = PurePosixPath(stored).name
            if content is not None:
                path = _unpack(content, unpacked / split / file)
            else:
                path = os.path.abspath(os.path.join(root or folder, stored))  # noqa: PTH100, PTH118 (links stay)
            by_row = content is not None or not last or last in seen
            seen.add(last)
            yield Row(path=path, shown=str(PurePosixPath(name, split, file)) if by_row else last, text=text)


def _splits(folder: Path) -> list[tuple[str, Any]]:
    """Name and `Dataset` of each split; a folder of one has no name for it."""
    # importing it costs 1.4 CPU-s, which jobs without such a folder need not spend
    import datasets  # noqa: PLC0415

    try:
        found = datasets.load_from_disk(str(folder), keep_in_memory=False)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _invalid(folder, f"cannot be read: {error}") from error
    return list(found.items()) if isinstance(found, dict) else [("", found)]


def _records(folder: Path, data: Any) -> Iterator[tuple[str, bytes | None, str | None]]:
    """Path ("" where there is none), bytes (None: the path counts) and text of each row."""
    column = _column(folder, data.features)
    if _is_audio(data.features[column]):
        data = data.cast_column(column, type(data.features[column])(decode=False))
    texts = [name for name in manifest.TEXT if name in data.features]
    for number, row in enumerate(data.select_columns([column, *texts])):
        try:
            path, content = _recording(row[column])
        except ValueError as error:
            raise _invalid(folder, f"row {number}: {column}: {error}") from None
        yield path, content, next((row[name] for name in texts if isinstance(row[name], str)), None)


def _column(folder: Path, features: dict[str, Any]) -> str:
    recorded = [name for name, feature in features.items() if _is_audio(feature)]
    wanted = [name for name in manifest.AUDIO if name in recorded] + recorded
    wanted += [name for name in manifest.AUDIO if name in features]
    if not wanted:
        raise _invalid(folder, f"no column {manifest.AUDIO[0]!r} among {', '.join(map(repr, features)) or 'none'}")
    return wanted[0]


def _is_audio(feature: Any) -> bool:
    return type(feature).__name__ == "Audio"


def _recording(value: Any) -> tuple[str, bytes | None]:
    if isinstance(value, str):
        path, content = value, None
    elif isinstance(value, dict) and {"path", "bytes"} <= value.keys():
        path, content = value["path"] or "", value["bytes"]
    elif value is None:
        path, content = "", None
    else:
        raise ValueError(f"must be audio or a path, got {type(value).__name__}")
    if "\0" in path:
        raise ValueError("a path cannot hold a NUL character")
    return path, content if content is not None or path else b""  # neither: a recording without bytes


def _suffix(path: str) -> str:
    suffix = PurePosixPath(path).suffix
    return suffix if SUFFIX.fullmatch(suffix) else ""


def _unpack(content: bytes, path: Path) -> str:
    """Write a file, unless an earlier attempt did: it appears whole or not at all."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_bytes(content)
        part.replace(path)
    return str(path)


def _invalid(folder: Path, what: str) -> JobError:
    return JobError(f"the datasets folder {str(folder)!r}: {what}", failure="DataInvalid")
