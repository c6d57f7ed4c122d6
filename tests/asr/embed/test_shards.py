"""Vectors in files of bounded size: every row once, in order, with whose it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from runner.asr.embed import shards as embed_shards
from runner.asr.embed.shards import Shards

Format = Literal["npy", "parquet"]
COUNTS = (1, 0, 7, 30, 2)
WIDTH = 3
KEYS = {"path": pa.string(), "frame": pa.int64()}


def vectors(item: int, count: int) -> NDArray[np.float16]:
    return (np.arange(count * WIDTH).reshape(count, WIDTH) + 100 * item).astype(np.float16)


def written(folder: Path, format_: Format, *, rows_each: int) -> tuple[list[str], list[list[dict[str, Any]]]]:
    shards = Shards(
        folder,
        format=format_,
        total=sum(COUNTS),
        width=WIDTH,
        dtype=np.dtype(np.float16),
        most_bytes=rows_each * WIDTH * 2 + 1,
        key_types=KEYS,
    )
    pieces = [
        shards.add(vectors(item, count), ({"path": f"clips/{item}", "frame": at} for at in range(count)))
        for item, count in enumerate(COUNTS)
    ]
    shards.close()
    return shards.names, pieces


def content(path: Path) -> NDArray[np.float16]:
    if path.suffix == ".npy":
        return np.load(path)
    column = parquet.read_table(path)["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(-1, WIDTH)


@pytest.mark.parametrize("group_rows", [1, 4, 1 << 16])
@pytest.mark.parametrize("rows_each", [1, 8, 40, 1000])
@pytest.mark.parametrize("format_", ["npy", "parquet"])
def test_every_row_is_where_the_pieces_say(
    format_: Format, rows_each: int, group_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_shards, "GROUP_ROWS", group_rows)
    names, pieces = written(tmp_path, format_, rows_each=rows_each)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert len(names) == -(-sum(COUNTS) // rows_each)
    files = {name: content(tmp_path / name) for name in names}
    assert [len(files[name]) for name in names[:-1]] == [rows_each] * (len(names) - 1)
    for item, count in enumerate(COUNTS):
        parts = [files[p["file"]][p["row"] : p["row"] + p["rows"]] for p in pieces[item]]
        assert sum(map(len, parts)) == count
        if count:
            np.testing.assert_array_equal(np.concatenate(parts), vectors(item, count))


def test_a_table_says_in_each_row_whose_it_is(tmp_path: Path) -> None:
    (name,), _ = written(tmp_path, "parquet", rows_each=1000)
    table = parquet.read_table(tmp_path / name)
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), WIDTH)
    said = [(row["path"], row["frame"]) for row in table.drop_columns("embedding").to_pylist()]
    assert said == [(f"clips/{item}", at) for item, count in enumerate(COUNTS) for at in range(count)]


def test_the_same_vectors_are_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder, "parquet", rows_each=8)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_without_vectors_there_are_no_files(tmp_path: Path) -> None:
    shards = Shards(tmp_path, format="npy", total=0, width=1, dtype=np.dtype(np.float32), most_bytes=8, key_types=KEYS)
    shards.close()
    assert (shards.names, list(tmp_path.iterdir())) == ([], [])
