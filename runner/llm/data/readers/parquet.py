"""`.parquet`, a few rows of one row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from runner.llm.data import fields
from runner.llm.data.readers.row import Row, Rows, UnreadableError

ROWS = 256  # decoded at a time


def records(path: Path, begin: int) -> Rows:
    """Row groups before ``begin`` are not read. Raises UnreadableError."""
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            first = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if first + count > begin:
                    yield from _group(file, group, first=first, begin=begin)
                first += count
            return first
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # ValueError: a text that is not UTF-8
        raise UnreadableError(
            f"it is no whole Parquet file ({next(iter(str(error).splitlines()), type(error).__name__)})"
        ) from error


def _group(file: Any, group: int, *, first: int, begin: int) -> Iterator[Row]:
    for batch in file.iter_batches(batch_size=ROWS, row_groups=[group], use_threads=False):
        skipped = max(begin - first, 0)
        for number, record in enumerate(batch.slice(skipped).to_pylist(), start=first + skipped + 1):
            yield Row(number, {name: fields.pruned(value) for name, value in record.items()})
        first += batch.num_rows
