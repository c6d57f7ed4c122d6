"""A folder of `Dataset.save_to_disk` or `DatasetDict.save_to_disk`, mapped into memory by the datasets package."""

from __future__ import annotations

from pathlib import Path

import pyarrow  # type: ignore[import-untyped]

from runner.llm.data import fields
from runner.llm.data.readers.row import Row, Rows, UnreadableError

ROWS = 256  # decoded at a time


def records(path: Path, begin: int) -> Rows:
    """The rows of one split. Raises UnreadableError."""
    # importing it costs 1.4 CPU-s, which jobs without such a folder need not spend
    import datasets  # noqa: PLC0415

    try:
        data = datasets.load_from_disk(str(path), keep_in_memory=False)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UnreadableError(f"it cannot be read ({_first_line(error)})") from error
    if isinstance(data, dict):
        raise UnreadableError(f"it has splits: {', '.join(data)}")
    total = len(data)
    row = min(begin, total)
    for start in range(row, total, ROWS):
        try:
            columns = data[start : start + ROWS]
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise UnreadableError(f"its rows from {start + 1} on cannot be read ({_first_line(error)})") from error
        for offset in range(len(next(iter(columns.values())))):
            record = {name: fields.pruned(values[offset]) for name, values in columns.items()}
            yield Row(start + offset + 1, record)
    return total


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
