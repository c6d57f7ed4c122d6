"""The last pass: results in input order, files beside them, and what the report says of them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from runner.asr.recordings import Recording
from runner.asr.score import Scorer
from runner.asr.spool import Spool
from runner.asr.subtitles import Format, render
from runner.asr.trust import Judge
from runner.asr.words import Char, Word

Fields = dict[str, Any]
TABLE_ROWS = 2000
SUFFIXES = {"textgrid": "TextGrid"}  # where it is not the format's name


@dataclass(kw_only=True)
class Summary:
    """Counts over all recordings."""

    statuses: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)  # of errors
    audio_s: float = 0.0
    confidence_sum: float = 0.0
    confidences: Counter[int] = field(default_factory=Counter)  # recordings with text, by tenth: 9 is 0.9 to 1
    words: int = 0
    stages: Counter[str] = field(default_factory=Counter)  # milliseconds
    failed_rows: list[tuple[Any, ...]] = field(default_factory=list)
    other_rows: list[tuple[Any, ...]] = field(default_factory=list)
    clips: dict[str, str] = field(default_factory=dict)  # name in a row -> where it lies, if that is another place

    @property
    def files(self) -> int:
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        return self.files - self.statuses["ok"] - self.statuses["empty"]

    @property
    def confidence(self) -> float | None:
        """Mean over recordings that have one."""
        return self.confidence_sum / self.confidences.total() if self.confidences else None

    def metrics(self) -> Fields:
        """What every kind counts, and the ratios beside the counts."""
        return {
            "files": self.files,
            "ok": self.statuses["ok"],
            "empty": self.statuses["empty"],
            "failed": self.failed,
            "failed_share": self.failed / self.files,
            "errors": dict(sorted(self.classes.items())),
            "audio_s": round(self.audio_s, 3),
            "confidence": None if self.confidence is None else round(self.confidence, 4),
        }


def write(
    spool: Spool,
    recordings: Sequence[Recording],
    *,
    out: Path,
    records: Path,
    formats: Sequence[Format],
    rate: int,
    scorer: Scorer | None,
    judge: Judge | None = None,
    folder: Path,
    name: str = "transcripts.jsonl",
) -> Summary:
    """Write ``name``, timing.jsonl and the files of ``formats``. The names in its rows are relative to ``folder``."""
    summary = Summary()
    names = file_names(recordings) if formats else []
    with ExitStack() as stack:
        transcripts = stack.enter_context((out / name).open("w", encoding="utf-8", newline="\n"))
        timings = stack.enter_context((records / "timing.jsonl").open("w", encoding="utf-8", newline="\n"))
        for item, recording in enumerate(recordings):
            record, timing = spool.read(item)
            transcripts.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
            timings.write(json.dumps({**recording.fields(), **timing}, ensure_ascii=False) + "\n")
            scored = None
            if scorer is not None and _scorable(recording, record):
                scored = scorer.add(recording.clip.text or "", record["text"], key=f"{recording.key} [{item}]")
                if judge is not None:
                    judge.add(record["words"], recording.clip.text or "")
            count(summary, record, timing)
            _add_row(summary, record, recording, folder=folder, wrong=scored.words.errors if scored else None)
            for format_ in formats:
                path = out / f"{names[item]}.{SUFFIXES.get(format_, format_)}"
                _write_beside(path, format_, record, recording, rate=rate)
    return summary


def _scorable(recording: Recording, record: Fields) -> bool:
    """A reference is of the whole recording, so single channels of it are not held against it."""
    return recording.clip.text is not None and not recording.named and record["error"] is None


def count(summary: Summary, record: Fields, timing: Fields) -> None:
    """Add one recording's result and timing to ``summary``."""
    summary.statuses[record["status"]] += 1
    if record["error"]:
        summary.classes[record["error"]["class"]] += 1
    else:
        summary.audio_s += record["duration_s"]
    if record.get("confidence") is not None:
        summary.confidence_sum += record["confidence"]
        summary.confidences[min(9, int(record["confidence"] * 10))] += 1
    summary.words += len(record.get("text", "").split())
    summary.stages.update(timing["timing_ms"])


def _add_row(summary: Summary, record: Fields, recording: Recording, *, folder: Path, wrong: int | None) -> None:
    failed = record["error"] is not None
    rows = summary.failed_rows if failed else summary.other_rows
    if len(rows) == TABLE_ROWS:
        return
    text = f"{record['error']['class']}: {record['error']['message']}" if failed else record["text"]
    name = recording.key.removeprefix(record["path"]).strip()
    row = (record["path"], name, record["status"], text, record["confidence"], record["duration_s"])
    rows.append((*row, recording.clip.text, wrong))
    lies = os.path.relpath(recording.clip.path, folder)
    if lies != os.path.relpath(folder / record["path"], folder):
        summary.clips[record["path"]] = lies


def _write_beside(path: Path, format_: Format, record: Fields, recording: Recording, *, rate: int) -> None:
    if record["error"]:
        return
    words = [_word(fields) for fields in record["words"]]
    channel = 1 if recording.channel is None else recording.channel + 1
    end_s = recording.first / rate + record["duration_s"]
    content = render(
        format_, text=record["text"], words=words, recording=record["path"], channel=str(channel), duration_s=end_s
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="\n")


def _word(fields: Fields) -> Word:
    chars = tuple(Char(**char) for char in fields.get("chars", ()))
    sure = fields["confidence"] or 0.0  # None where a word was aligned, but not by its letters
    return Word(word=fields["word"], start=fields["start"], end=fields["end"], confidence=sure, chars=chars)


def file_names(recordings: Sequence[Recording]) -> list[str]:
    """A path under files/ for each recording, without suffix: its own path, made unique and kept inside.

    `clips/a.flac` gives `clips/a`; where another recording would give the same, `clips/a.flac`; stretches and channels
    carry `.START-END` and `.chN`; what is still the same twice is numbered.
    """
    plain = [_inside(r.fields()["path"]) for r in recordings]
    files = Counter(str(p.with_suffix("")) for p in set(plain))
    names = []
    for recording, path in zip(recordings, plain, strict=True):
        stem = str(path.with_suffix(""))
        name = stem if files[stem] == 1 else str(path)
        clip = recording.clip
        if clip.start is not None or clip.end is not None:
            name += f".{clip.start or 0:g}-{'' if clip.end is None else f'{clip.end:g}'}"
        names.append(name + (f".ch{recording.channel}" if recording.named else ""))
    return _numbered(names)


def _inside(path: str) -> PurePosixPath:
    parts = [p for p in PurePosixPath(path).parts if p not in {"/", "."}]
    return PurePosixPath(*("_" if p == ".." else p for p in parts))


def _numbered(names: list[str]) -> list[str]:
    taken, seen = set(names), Counter[str]()
    unique = []
    for name in names:
        seen[name] += 1
        fresh = name
        number = seen[name]
        while number > 1 and (fresh := f"{name}~{number}") in taken:
            number += 1
        taken.add(fresh)
        unique.append(fresh)
    return unique
