"""Vectors in files of bounded size, written as they come: `embeddings-00000.npy`, or `.parquet`, and so on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
from numpy.typing import NDArray
from pyarrow import parquet  # type: ignore[import-untyped,unused-ignore]

Fields = dict[str, Any]
Numbers = NDArray[np.floating]

GROUP_BYTES, GROUP_ROWS = 1 << 24, 1 << 16  # of one row group of a parquet file, which is held in memory


class Shard(Protocol):
    """One file."""

    def add(self, block: Numbers, keys: Sequence[Fields]) -> None:
        """Append ``block`` [n, width]; ``keys`` say of each row whose it is."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


class Shards:
    """Files of at most ``most_bytes`` each, for ``total`` vectors of ``width`` numbers."""

    def __init__(
        self,
        folder: Path,
        *,
        format: Literal["npy", "parquet"],  # noqa: A002 (the spec's own word)
        total: int,
        width: int,
        dtype: np.dtype[Any],
        most_bytes: int,
        key_types: dict[str, pa.DataType],
    ) -> None:
        self._folder, self._format, self._key_types = folder, format, key_types
        self._total, self._width, self._dtype = total, width, dtype
        self._each = max(1, most_bytes // (width * dtype.itemsize))
        self._row = 0
        self._open: Shard | None = None

    @property
    def names(self) -> list[str]:
        """All files, in order."""
        return [self._name(first) for first in range(0, self._total, self._each)]

    def _name(self, row: int) -> str:
        return f"embeddings-{row // self._each:05d}.{self._format}"

    def add(self, vectors: Numbers, keys: Iterator[Fields]) -> list[Fields]:
        """Write ``vectors``; in which files, from which row on, and how many rows."""
        places: list[Fields] = []
        while len(vectors):
            at = self._row % self._each
            if not at:
                self._next()
            assert self._open is not None
            part = vectors[: min(self._each - at, self._block_rows())]
            self._open.add(part, [next(keys) for _ in range(len(part))])
            if places and places[-1]["file"] == self._name(self._row):
                places[-1]["rows"] += len(part)
            else:
                places.append({"file": self._name(self._row), "row": at, "rows": len(part)})
            self._row += len(part)
            vectors = vectors[len(part) :]
        return places

    def _block_rows(self) -> int:
        return min(GROUP_ROWS, max(1, GROUP_BYTES // (self._width * self._dtype.itemsize)))

    def _next(self) -> None:
        if self._open is not None:
            self._open.close()
        path = self._folder / self._name(self._row)
        rows = min(self._each, self._total - self._row)
        if self._format == "npy":
            self._open = NpyShard(path, rows=rows, width=self._width, dtype=self._dtype)
        else:
            most = self._block_rows()
            self._open = ParquetShard(path, width=self._width, dtype=self._dtype, key_types=self._key_types, most=most)

    def close(self) -> None:
        """Finish the last file."""
        assert self._row == self._total, f"{self._row} of {self._total} vectors were written"
        if self._open is not None:
            self._open.close()


class NpyShard:
    """A plain array; whose rows they are stands in the index."""

    def __init__(self, path: Path, *, rows: int, width: int, dtype: np.dtype[Any]) -> None:
        self._file = path.open("wb")
        header = {"descr": dtype.str, "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def add(self, block: Numbers, keys: Sequence[Fields]) -> None:
        """Append ``block``."""
        self._file.write(np.ascontiguousarray(block).data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ParquetShard:
    """A table: the keys as columns, the vector as a list of fixed size."""

    def __init__(
        self, path: Path, *, width: int, dtype: np.dtype[Any], key_types: dict[str, pa.DataType], most: int
    ) -> None:
        self._key_types, self._most = key_types, most
        self._vector = pa.list_(pa.from_numpy_dtype(dtype), width)
        self._schema = pa.schema([*key_types.items(), ("embedding", self._vector)])
        self._writer = parquet.ParquetWriter(path, self._schema, use_dictionary=list(key_types))
        self._blocks: list[Numbers] = []
        self._keys: list[Fields] = []

    def add(self, block: Numbers, keys: Sequence[Fields]) -> None:
        """Append ``block``; rows are written in groups."""
        self._blocks.append(np.array(block))
        self._keys += keys
        if len(self._keys) >= self._most:
            self._write()

    def _write(self) -> None:
        columns = [pa.array([key[name] for key in self._keys], type_) for name, type_ in self._key_types.items()]
        numbers = pa.array(np.concatenate(self._blocks).ravel())
        columns.append(pa.FixedSizeListArray.from_arrays(numbers, type=self._vector))
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._blocks, self._keys = [], []

    def close(self) -> None:
        """Write the last group and the footer."""
        if self._keys:
            self._write()
        self._writer.close()
