"""Recordings' vectors, kept on disk as they come: an interrupted job goes on, and memory holds offsets only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.asr.collector import SILENCE, Collector, Head, record
from runner.asr.ctc import load_alphabet
from runner.asr.embed.engine import Made, Pooler, Rows, Wanted
from runner.asr.pieces import Outcome
from runner.asr.recordings import Recording
from runner.asr.spool import Spool
from runner.asr.trouble import RecordingError

Fields = dict[str, Any]
Numbers = NDArray[np.floating]
DTYPES: dict[str, np.dtype[Any]] = {"fp16": np.dtype(np.float16), "fp32": np.dtype(np.float32)}


class Vectors:
    """`vectors.bin` beside the spool: rows of numbers one behind another; the spool's lines say whose lie where.

    What a killed attempt wrote and no line names is passed over.
    """

    def __init__(self, folder: Path, spool: Spool, dtype: np.dtype[Any]) -> None:
        self._path, self._dtype = folder / "vectors.bin", dtype
        if not spool.resumed:
            self._path.unlink(missing_ok=True)
        self._file = self._path.open("ab")

    def put(self, blocks: Iterable[Numbers]) -> Fields:
        """Keep ``blocks``, each [n, width]; where they lie."""
        at, rows, width = self._file.seek(0, 2), 0, 0
        for block in blocks:
            self._file.write(np.ascontiguousarray(block, self._dtype).data)
            rows, width = rows + len(block), block.shape[1]
        self._file.flush()  # all of it, before the line that names it: a write of its own may be cut short in silence
        return {"at": at, "rows": rows, "width": width}

    def get(self, place: Fields) -> Numbers:
        """What ``put`` kept, on disk. [rows, width]."""
        shape = (place["rows"], place["width"])
        return np.memmap(self._path, dtype=self._dtype, mode="r", offset=place["at"], shape=shape)

    def close(self) -> None:
        """Close the file; what was kept stays."""
        self._file.close()


class EmbedCollector(Collector):
    """Lines of index.jsonl, but for where a recording's vectors end up: `vectors` says where they lie until then."""

    def __init__(self, *args: Any, wanted: Wanted, vectors: Vectors) -> None:
        super().__init__(*args)
        self._wanted, self._vectors = wanted, vectors
        self._pooler: Pooler | None = None

    def failed(self, recording: Recording, trouble: RecordingError) -> Fields:
        """The result of a recording with nothing to show."""
        return _line(record(recording, trouble), frames=0, words=None)

    def alone(self, recording: Recording, outcome: Outcome) -> Fields:
        """What the worker made of the only window."""
        return self._result(recording, outcome.made, samples=outcome.samples)

    def joined(self, item: int, entries: Sequence[Fields], *, samples: int) -> Fields:
        """What all frames of a recording give."""
        recording = self._recordings[item]
        rows = self._spool.rows(item)
        if rows is None:
            return self._result(recording, None, samples=samples)
        pooler = self._made_by(Head(**entries[0]["head"]))
        try:
            if pooler.in_parts:
                made = pooler.merged(rows.reshape(len(entries), -1, rows.shape[1]))
            else:
                frames = self._frames(entries, samples=samples)
                made = pooler.made(rows[:frames], recording.clip.text, first=recording.first, samples=samples)
            return self._result(recording, made, samples=samples)
        except RecordingError as trouble:
            return self.failed(recording, trouble)

    def _frames(self, entries: Sequence[Fields], *, samples: int) -> int:
        """Of the whole recording: windows of silence at its end gave none, and front ends may differ by one."""
        source = self._setup.source
        given, whole = max(entry["frames"] for entry in entries), (samples - source.receptive) // source.stride + 1
        return whole if whole > given + 1 else given

    def put_rows(self, outcome: Outcome, rows: Rows, *, at: int, head: Head) -> None:
        """Where frames are pooled, their window's parts alone: an hour of 24 layers would take 18 GB."""
        if self._made_by(head).in_parts:
            (each, width), windows = rows.shape, self._layout.cut.count(self._recordings[outcome.item].samples)
            nothing = np.zeros((1, width), np.float32)
            at, most = each * outcome.window, each * windows
            self._spool.put_rows(outcome.item, rows, at=at, frames=most, blank=head.blank, quiet=nothing)
        else:
            super().put_rows(outcome, rows, at=at, head=head)

    def quiet_row(self, rows: Rows, head: Head) -> Rows:
        """Silence has no features."""
        return self._made_by(head).quiet(rows.shape[1])

    def _made_by(self, head: Head) -> Pooler:
        if self._pooler is None:
            alphabet = load_alphabet(self._setup, vocab=head.vocab, blank=head.blank)
            self._pooler = Pooler(self._setup, self._wanted, alphabet)
        return self._pooler

    def _result(self, recording: Recording, made: Made | None, *, samples: int) -> Fields:
        base = record(recording, SILENCE, seconds=samples / self._setup.source.rate)
        if made is None:
            return _line(base, frames=0, words=[] if self._wanted.pooling == "word" else None)
        place = self._vectors.put(made.vectors)
        line = _line({**base, "status": "ok"}, frames=made.frames, words=made.words)
        return {**line, "vectors": place}


def _line(base: Fields, *, frames: int, words: list[Fields] | None) -> Fields:
    """``base`` as a transcript's line, with what an embedding has instead of text."""
    line = {key: value for key, value in base.items() if key not in {"text", "confidence", "words", "error"}}
    return {**line, "heard_frames": frames, **({} if words is None else {"words": words}), "error": base["error"]}
