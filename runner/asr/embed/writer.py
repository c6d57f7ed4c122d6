"""The last pass: vectors in input order into shards, and an index by input that says where each recording's are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]

from runner.asr.embed.collector import DTYPES, Vectors
from runner.asr.embed.engine import Wanted
from runner.asr.embed.pool import STATISTICS
from runner.asr.embed.shards import Shards
from runner.asr.recordings import Recording
from runner.asr.spool import Spool
from runner.asr.writer import TABLE_ROWS, Summary, count
from runner.context import Table

Fields = dict[str, Any]
KEYS = {"path": pa.string(), "id": pa.string(), "start": pa.float64(), "end": pa.float64(), "channel": pa.int32()}
WORD_KEYS = {"word": pa.string(), "word_start": pa.float64(), "word_end": pa.float64()}


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written."""

    summary: Summary
    vectors: int
    width: int  # numbers in a vector; 0 without any
    files: tuple[str, ...]
    table: Table


def write(
    spool: Spool,
    vectors: Vectors,
    recordings: Sequence[Recording],
    *,
    out: Path,
    records: Path,
    wanted: Wanted,
    format: Literal["npy", "parquet"],  # noqa: A002 (the spec's own word)
    most_bytes: int,
    shown: Callable[[Recording], str],
) -> Written:
    """Write index.jsonl, the shards and timing.jsonl. ``shown`` is the path for players."""
    total, width = _size(spool, len(recordings))
    keys = {**KEYS, **{"none": {"frame": pa.int64()}, "word": WORD_KEYS}.get(wanted.pooling, {})}
    shards = Shards(
        out,
        format=format,
        total=total,
        width=width or 1,
        dtype=DTYPES[wanted.dtype],
        most_bytes=most_bytes,
        key_types=keys,
    )
    summary = Summary()
    rows: list[tuple[Any, ...]] = []
    with ExitStack() as stack:
        index = stack.enter_context((out / "index.jsonl").open("w", encoding="utf-8", newline="\n"))
        timings = stack.enter_context((records / "timing.jsonl").open("w", encoding="utf-8", newline="\n"))
        for item, recording in enumerate(recordings):
            line, timing = spool.read(item)
            place = line.pop("vectors", None)
            if place is not None:
                line["pieces"] = shards.add(vectors.get(place), _keys(line, place["rows"], wanted))
            line = _placed(line)
            index.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
            timings.write(json.dumps({**recording.fields(), **timing}, ensure_ascii=False) + "\n")
            count(summary, line, timing)
            if len(rows) < TABLE_ROWS:
                rows.append(_row(line, recording, path=shown(recording)))
    shards.close()
    return Written(
        summary=summary, vectors=total, width=width, files=tuple(shards.names), table=_table(rows, summary.files)
    )


def _size(spool: Spool, items: int) -> tuple[int, int]:
    """How many vectors there are, and how long they are: a file's header tells it before its content."""
    total = width = 0
    for item in range(items):
        place = spool.read(item)[0].get("vectors")
        if place is not None:
            total, width = total + place["rows"], place["width"]
    return total, width


def _keys(line: Fields, count: int, wanted: Wanted) -> Iterator[Fields]:
    own = {key: line.get(key) for key in KEYS}
    for at in range(count):
        if wanted.pooling == "word":
            word = line["words"][at]
            yield {**own, "word": word["word"], "word_start": word["start"], "word_end": word["end"]}
        else:
            yield {**own, "frame": at}


def _placed(line: Fields) -> Fields:
    """With `pieces` always, before the error."""
    error = line.pop("error")
    return {**line, "pieces": line.get("pieces", []), "error": error}


def describe(wanted: Wanted, written: Written, *, hidden: int, rate: int, stride: int, silence: str) -> Fields:
    """embeddings.json: what the numbers of a vector are, and how long a frame is."""
    layers = [[layer] for layer in wanted.layers] if wanted.weights is None else [list(wanted.layers)]
    parts = [
        {"layers": group, "statistic": statistic, "from": hidden * at, "to": hidden * (at + 1)}
        for at, (statistic, group) in enumerate((s, g) for s in STATISTICS[wanted.pooling] for g in layers)
    ]
    assert written.width in {0, hidden * len(parts)}, f"vectors have {written.width} numbers, not {hidden * len(parts)}"
    return {
        "dimension": hidden * len(parts),
        "dtype": str(DTYPES[wanted.dtype]),
        "layers": list(wanted.layers),
        "weights": None if wanted.weights is None else list(wanted.weights),
        "pooling": wanted.pooling,
        "parts": parts,
        "silence": silence,
        "sample_rate": rate,
        "stride_samples": stride,
        "frame_s": stride / rate,
        "vectors": written.vectors,
        "files": list(written.files),
    }


def _row(line: Fields, recording: Recording, *, path: str) -> tuple[Any, ...]:
    error = line["error"]
    vectors = sum(piece["rows"] for piece in line.get("pieces", []))
    said = f"{error['class']}: {error['message']}" if error else ""
    name = recording.key.removeprefix(line["path"]).strip()
    return path, name, line["status"], vectors, line["heard_frames"], line["duration_s"], said


def _table(rows: list[tuple[Any, ...]], files: int) -> Table:
    columns = ("recording", "part", "status", "vectors", "frames heard", "seconds", "error")
    note = f"the first {len(rows)} of {files}; all are in index.jsonl" if len(rows) < files else ""
    return Table(title="Recordings", columns=columns, rows=rows, note=note, audio=columns[0])
