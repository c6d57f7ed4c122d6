"""`review.jsonl`: recordings that the model is not sure of, worst first, with the reason.

It is a manifest too: `data: {manifest: "artifact:NAME#review.jsonl"}` gives them to another model. What was
heard stands as `heard`, not as `text`, which would be taken for a reference.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.asr.recordings import Recording
from runner.asr.spool import Spool
from runner.context import Table

NAME = "review.jsonl"
SHOWN = 5  # words named in a reason
ROWS = 100  # of the report's table


@dataclass(frozen=True, kw_only=True)
class Routed:
    """What was put on the list."""

    count: int
    rows: list[tuple[Any, ...]]  # the first of them: recording, confidence, reason, heard

    def table(self) -> Table:
        """For the report."""
        note = f"the first {len(self.rows)} of {self.count}; all are in {NAME}" if len(self.rows) < self.count else ""
        return Table(
            title="To review", columns=("recording", "confidence", "reason", "heard"), rows=self.rows, note=note
        )


def write(path: Path, spool: Spool, recordings: Sequence[Recording], *, below: float) -> Routed:
    """Write the list. Memory holds one number for each recording on it."""
    unsure = []
    for item in range(len(recordings)):
        record, _ = spool.read(item)
        if record["status"] == "ok" and record["confidence"] < below:
            unsure.append((record["confidence"], item))
    rows: list[tuple[Any, ...]] = []
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for confidence, item in sorted(unsure):
            record, _ = spool.read(item)
            reason = _reason(record, below)
            line = {
                **recordings[item].fields(),
                "confidence": confidence,
                "duration_s": record["duration_s"],
                "reason": reason,
                "heard": record["text"],
                "words": [word for word in record["words"] if word["confidence"] < below],
            }
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
            if len(rows) < ROWS:
                rows.append((recordings[item].key, confidence, reason, record["text"]))
    return Routed(count=len(unsure), rows=rows)


def uncalibrated(below: float) -> str:
    """What the report says where the list rests on the model's own confidence."""
    return (
        f"route.below {below:g} was held against such confidence, which mostly exceeds the share of right words: "
        "set confidence.calibrate with data.validation, or confidence.calibration"
    )


def _reason(record: dict[str, Any], below: float) -> str:
    said = f"confidence {record['confidence']:g} is below {below:g}"
    least = sorted((w for w in record["words"] if w["confidence"] < below), key=lambda w: (w["confidence"], w["start"]))
    if not least:
        return said
    named = ", ".join(f"{w['word']!r} {w['confidence']:g} at {w['start']:g} s" for w in least[:SHOWN])
    return f"{said}; least sure: {named}"
