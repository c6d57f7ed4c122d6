"""What the data lint found, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from runner.context import Plot, Table

Severity = Literal["error", "warning"]
EXAMPLES = 20  # kept of each finding
EDGES_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # of the histogram; the last bin has no end


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One class of trouble in one split."""

    name: str
    severity: Severity
    allowed: bool  # by name, which makes a warning of an error
    split: str
    count: int
    unit: str  # what is counted: recordings, characters, speakers
    what: str  # what it means, in a sentence
    examples: tuple[str, ...]  # the first ones, in the table's order


@dataclass(frozen=True, kw_only=True)
class Split:
    """What one table holds. Recordings that cannot be read have no length."""

    recordings: int = 0
    audio_s: float = 0.0
    words: int = 0
    rates: Mapping[int, int] = field(default_factory=dict)  # Hz -> recordings
    durations: tuple[int, ...] = (0,) * len(EDGES_S)  # recordings by length, bins from EDGES_S


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that the lint says. ``unusable`` has the positions of rows with nothing to learn from or to measure by."""

    splits: Mapping[str, Split]
    findings: tuple[Finding, ...]  # errors first
    unusable: Mapping[str, frozenset[int]]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What stops the job."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def failure(self) -> str | None:
        """What stops the job, in one line; None when nothing does."""
        if not self.errors:
            return None
        found = "; ".join(f"{one.name} in {one.split}: {_counted(one)}, e.g. {one.examples[0]}" for one in self.errors)
        return f"the data would not train well: {found}"

    def table(self) -> Table:
        """The findings, one row each."""
        rows: list[tuple[Any, ...]] = [
            (
                "allowed" if one.allowed else one.severity,
                one.name,
                one.split,
                one.count,
                one.unit,
                one.what,
                "; ".join(one.examples[:3]),
            )
            for one in self.findings
        ]
        sizes = "; ".join(
            f"{name}: {split.recordings} recordings, {split.audio_s / 3600:.2f} h"
            for name, split in self.splits.items()
        )
        return Table(
            title="Data lint",
            columns=("severity", "finding", "data", "count", "of", "what", "examples"),
            rows=rows,
            note=sizes if rows else f"{sizes}; nothing was found",
        )

    def plots(self) -> tuple[Plot, ...]:
        """How long the recordings of each split are."""
        return tuple(
            Plot(
                title=f"Length of the recordings of {name}",
                kind="bar",
                x=[f"{edge:g}" for edge in EDGES_S],
                y=[float(count) for count in split.durations],
                x_label="seconds, from",
                y_label="recordings",
            )
            for name, split in self.splits.items()
        )

    def __str__(self) -> str:
        """For a terminal or a log: a line each for splits and findings."""
        lines = []
        for name, split in self.splits.items():
            bins = [f"{_bin(place)} {count}" for place, count in enumerate(split.durations) if count]
            count = f"{split.recordings} recording{'' if split.recordings == 1 else 's'}"
            lines.append(f"{name}: {count}, {split.audio_s:.1f} s ({', '.join(bins) or 'none'})")
        for one in self.findings:
            shown = "allowed" if one.allowed else one.severity
            lines.append(f"{shown:8}{one.name} in {one.split}: {_counted(one)}: {one.what}")
            lines += [f"        {example}" for example in one.examples[:3]]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The text of `lint.json`: the same bytes for the same data."""
        content = {
            "version": 1,
            "splits": {
                name: {
                    "recordings": split.recordings,
                    "audio_s": round(split.audio_s, 3),
                    "words": split.words,
                    "sample_rates": {str(rate): split.rates[rate] for rate in sorted(split.rates)},
                    "durations": [
                        {"from_s": start, "to_s": end, "recordings": count}
                        for (start, end), count in zip(pairwise((*EDGES_S, None)), split.durations, strict=True)
                    ],
                    "unusable": len(self.unusable.get(name, ())),
                }
                for name, split in self.splits.items()
            },
            "findings": [{**vars(finding), "examples": list(finding.examples)} for finding in self.findings],
        }
        return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


class Findings:
    """Collects findings: counts and the first examples, whatever the number of recordings."""

    def __init__(self, classes: Mapping[str, tuple[Severity, str]], *, allow: Collection[str]) -> None:
        self._classes = classes
        self._allow = allow
        self._counts = Counter[tuple[str, str]]()
        self._examples: dict[tuple[str, str], list[str]] = {}
        self._units: dict[str, str] = {}

    def add(self, name: str, split: str, example: str, *, count: int = 1, unit: str = "recordings") -> None:
        """One more of ``name``."""
        assert name in self._classes, f"no such class: {name}"
        self._counts[name, split] += count
        self._units[name] = unit
        shown = self._examples.setdefault((name, split), [])
        if len(shown) < EXAMPLES:
            shown.append(example)

    def result(self) -> tuple[Finding, ...]:
        """Errors first, then by the order of the classes."""
        order = list(self._classes)
        found = []
        for name, split in sorted(self._counts, key=lambda key: (order.index(key[0]), key[1])):
            severity, what = self._classes[name]
            allowed = severity == "error" and name in self._allow
            found.append(
                Finding(
                    name=name,
                    severity="warning" if allowed else severity,
                    allowed=allowed,
                    split=split,
                    count=self._counts[name, split],
                    unit=self._units[name],
                    what=what,
                    examples=tuple(self._examples[name, split]),
                )
            )
        return tuple(sorted(found, key=lambda finding: finding.severity != "error"))


def bin_of(seconds: float) -> int:
    """The place in the histogram of a length."""
    return max(0, sum(seconds >= edge for edge in EDGES_S) - 1)


def _bin(place: int) -> str:
    start = EDGES_S[place]
    return f"{start:g}-{EDGES_S[place + 1]:g} s:" if place + 1 < len(EDGES_S) else f"from {start:g} s:"


def _counted(finding: Finding) -> str:
    return f"{finding.count} {finding.unit if finding.count != 1 else finding.unit.removesuffix('s')}"
