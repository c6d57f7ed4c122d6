"""A report as plain text, for `runner artifacts show`."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runner.report.text import duration, value
from runner.schema.words import size

Fields = Mapping[str, Any]
MAX_ROWS = 20  # of one table; the page has the others
MAX_CELL = 60  # characters


def show(manifest: Fields, report: Fields) -> str:
    """The same as ``report.html`` in a terminal. ``manifest`` and ``report`` as in their JSON files."""
    run = report["run"]
    parts = [
        line(f"{manifest['name']}@{manifest['version']}  {report['kind']}  {report['outcome']}"),
        *([line(f"linked from {manifest['linked_from']}")] if manifest.get("linked_from") else []),
        *([f"FAILED: {line(report['failure'])}"] if report["failure"] else []),
        *(f"note: {line(note)}" for note in report["notes"]),
        _section("Metrics", _metrics(report)),
        _section("Gates", _gates(report["gates"])),
        *(_table(table) for table in report["tables"]),
        _section("Time by stage", grid((name, duration(s)) for name, s in _longest_first(report["timings"]))),
        _section("Ledger of optimisations", _ledger(report["ledger"])),
        _section("Inputs", grid((i["field"], i["ref"], size(i.get("size")), i["digest"]) for i in report["inputs"])),
        _section("Files", grid((file["path"], size(file["size"])) for file in manifest["files"])),
        _section("Run", grid((key, value(item)) for key, item in run.items())),
        _section("Environment", grid((key, value(item)) for key, item in report["environment"].items())),
        f"\nfingerprint {manifest['fingerprint']}\ndigest      {manifest['digest']}",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def line(text: str) -> str:
    """``text`` on one line and without control characters: names and transcripts must not steer a terminal."""
    return "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)


def grid(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows in columns as wide as their widest cell, the last one as long as it is."""
    cells = [[line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _section(title: str, lines: list[str]) -> str:
    return "\n".join(["", line(title), *(f"  {line(text)}" for text in lines)]) if lines else ""


def _metrics(report: Fields) -> list[str]:
    rows = []
    for name, item in report["metrics"].items():
        interval = report["intervals"].get(name)
        between = f", 95% interval {value(interval[0])} to {value(interval[1])}" if interval else ""
        rows.append((name, value(item) + between))  # one column: a long text among the values must not move all others
    return grid(rows)


def _gates(gates: Sequence[Fields]) -> list[str]:
    return grid(
        (
            gate["name"],
            f"limit {value(gate['limit'])}",
            f"value {value(gate['value'])}",
            "met" if gate["passed"] else "MISSED",
        )
        for gate in gates
    )


def _ledger(ledger: Sequence[Fields]) -> list[str]:
    return grid(
        (
            entry["what"],
            entry["where"],
            f"{'applied' if entry['applied'] else 'skipped'} ({entry['wanted']})",
            "" if entry["parity_error"] is None else f"parity error {value(entry['parity_error'])}",
            entry["saving"] or "",
            entry["why"],
        )
        for entry in ledger
    )


def _table(table: Fields) -> str:
    rows = [[_short(value(cell)) for cell in row] for row in table["rows"][:MAX_ROWS]]
    more = table["total"] - len(rows)
    lines = grid([table["columns"], *rows])
    if more:
        lines.append(f"... and {more:,} more rows in report.html")
    return _section(table["title"], [*([table["note"]] if table["note"] else []), *lines])


def _short(text: str) -> str:
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def _longest_first(timings: Fields) -> list[tuple[str, float]]:
    return sorted(timings.items(), key=lambda item: -item[1])
