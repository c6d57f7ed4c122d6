"""A folder of `Dataset.save_to_disk` or `DatasetDict.save_to_disk`, mapped into memory by the datasets package."""

from __future__ import annotations

from pathlib import Path

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
        raise UnreadableError(f"it cannot be read ({str(error).splitlines()[0]})") from error
    if isinstance(data, dict):
        raise UnreadableError(f"it has splits: {', '.join(data)}")
    total = len(data)
    row = min(begin, total)
    for start in range(row, total, ROWS):
        columns = data[start : start + ROWS]
        for offset in range(len(next(iter(columns.values())))):
            record = {name: fields.pruned(values[offset]) for name, values in columns.items()}
            yield Row(start + offset + 1, record)
    return total
