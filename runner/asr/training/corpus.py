"""The clips of a training or validation table: where their sound lies, what is said in them, their groups."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.asr import audio, recordings
from runner.asr.recordings import Channels, Clip, Recording
from runner.asr.trouble import RecordingError
from runner.schema import manifest
from runner.schema.errors import JobError

Samples = NDArray[np.float32]
OWN = frozenset({*manifest.AUDIO, *manifest.TEXT, "id", "start", "end", ""})  # columns that are no group
SHOWN = 5  # recordings named in an error


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One clip with its text."""

    recording: Recording
    text: str  # as the model is to write it
    groups: dict[str, str]  # further columns of its row


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The clips of one table, in its order. Only headers are held; sound is read when it is asked for."""

    utterances: tuple[Utterance, ...]
    rate: int  # Hz, of the model

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Samples of each clip."""
        return np.array([one.recording.samples for one in self.utterances], dtype=np.int64)

    @property
    def seconds(self) -> float:
        return float(self.lengths.sum()) / self.rate

    def without(self, positions: Set[int]) -> Corpus:
        """The same without the clips at ``positions``."""
        kept = (one for place, one in enumerate(self.utterances) if place not in positions)
        return replace(self, utterances=tuple(kept))

    def samples(self, index: int) -> Samples:
        """The sound of one clip, [samples].

        Raises JobError (Preempted) naming it: the lint heard it, so what is away now may be back at the next attempt.
        """
        found = self.utterances[index].recording
        assert found.header is not None, "what cannot be heard was not left out"
        try:
            return audio.read(
                found.clip.path,
                header=found.header,
                first=found.first,
                last=found.first + found.samples,
                rate=self.rate,
                channel=found.channel,
            ).samples
        except RecordingError as error:
            raise JobError(f"{found.key}: {error.message}", failure="Preempted") from error


def read(
    clips: Sequence[Clip],
    groups: Sequence[dict[str, str]],
    *,
    field: str,
    normalise: Callable[[str], str],
    channels: Channels,
    rate: int,
    receptive: int,
    threads: int,
) -> Corpus:
    """The corpus of ``clips``; ``groups`` are their rows' further columns, ``field`` names the table in errors.

    What cannot be heard is among them, for the lint to name. Raises JobError (DataInvalid) for a table without rows,
    or with rows without a text.
    """
    if not clips:
        raise JobError(f"{field} has no rows", failure="DataInvalid")
    found = list(recordings.recordings(clips, channels=channels, rate=rate, receptive=receptive, threads=threads))
    bare = [one.key for one in found if one.clip.text is None]
    if bare:
        more = f" and {len(bare) - SHOWN} more" if len(bare) > SHOWN else ""
        shown = ", ".join(bare[:SHOWN])
        raise JobError(
            f"{field}: {len(bare)} of {len(found)} recordings have no text: {shown}{more}", failure="DataInvalid"
        )
    utterances = (
        Utterance(recording=one, text=normalise(one.clip.text or ""), groups=columns)
        for one, columns in zip(found, groups, strict=True)
    )
    return Corpus(utterances=tuple(utterances), rate=rate)


def columns(path: Path, *, rows: int) -> list[dict[str, str]]:
    """What each row of the table at ``path`` says beyond audio, text, id and times; {} where it says nothing.

    The table was read before, so it is known to be sound. Folders of the datasets package have no further columns.
    """
    if manifest.is_arrow(path):
        return [{} for _ in range(rows)]
    table = manifest.table_of(path)
    with table.open(encoding="utf-8-sig", newline="") as file:
        found = [_groups(record) for record in _records(file, table.suffix.lower())]
    assert len(found) == rows, f"{table} was read twice and had {rows} rows, then {len(found)}"
    return found


def _records(file: Any, suffix: str) -> Iterator[dict[str, Any]]:
    if suffix == ".jsonl":
        return (json.loads(line) for line in file if not line.isspace())
    if suffix == ".tsv":
        return csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.DictReader(file)


def _groups(record: dict[str, Any]) -> dict[str, str]:
    found = {}
    for key, value in record.items():
        name = (key or "").strip()
        if name not in OWN and value != "" and isinstance(value, str | int | float):
            found[_plain(name)] = _plain(value) if isinstance(value, str) else json.dumps(value)
    return found


def _plain(text: str) -> str:
    """``text`` as it can be written: JSON can name half of a surrogate pair, UTF-8 cannot."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")
