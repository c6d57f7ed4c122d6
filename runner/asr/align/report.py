"""What the report shows of an alignment beside the recordings: the words that fit worst."""

from __future__ import annotations

import heapq
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.context import LedgerLine, Table

WORST = 50


@dataclass(frozen=True, kw_only=True)
class Words:
    """Of all recordings."""

    aligned: int
    wildcards: int  # words of which no letter was aligned
    worst: tuple[tuple[Any, ...], ...]  # (recording, word, start, end, confidence), the least sure first

    def table(self) -> Table:
        """The least sure words: where text and speech differ, or the model hears badly."""
        columns = ("recording", "word", "from s", "to s", "confidence")
        return Table(title="Least sure words", columns=columns, rows=list(self.worst))


def words(path: Path) -> Words:
    """Read alignments.jsonl, a line at a time."""
    aligned = wildcards = 0
    worst: list[tuple[float, int, tuple[Any, ...]]] = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            for word in record["words"]:
                aligned += 1
                sure = word["confidence"]
                if sure is None:
                    wildcards += 1
                    continue
                row = (record.get("id", record["path"]), word["word"], word["start"], word["end"], sure)
                entry = (-sure, -aligned, row)
                (heapq.heappush if len(worst) < WORST else heapq.heappushpop)(worst, entry)
    return Words(aligned=aligned, wildcards=wildcards, worst=tuple(row for _, _, row in sorted(worst, reverse=True)))


def engine_line(missing: str | None) -> LedgerLine:
    """Which search found the paths; ``missing`` is why torchaudio's was not at hand, if so."""
    why = (
        f"own search: torchaudio does not import ({missing})" if missing else "torchaudio's search; silence by our own"
    )
    return LedgerLine(what="alignment", where="paths", applied=not missing, why=why)
