"""`report.html` and its twin `report.json`: what ran, on what, for how long, and what came out."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from importlib import resources
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import jinja2
import yaml
from markupsafe import Markup

from runner.context import Plot, Result, Table
from runner.report import plot as plots
from runner.report.audio import Clips
from runner.report.text import duration, moment, value
from runner.schema.words import size

Fields = dict[str, Any]
SCHEMA_VERSION = 1
MAX_ROWS = 2000  # of one table: a browser sorts them at once, and the page stays under a few MB


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a report says. Plain values; ``to_json`` is what ``report.json`` holds."""

    name: str  # "podcast-pt@v3", or the spec's name for a run without an artifact
    kind: str
    outcome: Literal["published", "quarantined", "failed"]
    spec: Mapping[str, Any]  # resolved, every default filled in
    fingerprint: str = ""
    inputs: Iterable[Mapping[str, Any]] = ()  # {field, ref, digest, files, size}, as in the manifest
    environment: Mapping[str, Any] = field(default_factory=dict)  # python, packages, platform, devices
    code: Mapping[str, Any] = field(default_factory=dict)  # version, commit, dirty
    run: Mapping[str, Any] = field(default_factory=dict)  # id, attempts, started, ended (ISO 8601), host, executor
    gates: Iterable[Mapping[str, Any]] = ()  # {name, limit, value, passed}
    result: Result
    audio_root: Path | None = None  # folder that relative paths of audio columns refer to; None embeds no players

    def to_json(self) -> Fields:
        """JSON types only: NaN and infinities become null, tables are cut to ``MAX_ROWS`` rows, failures first; what
        the spec says of itself is the first note."""
        description = self.spec.get("description")
        said = {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "kind": self.kind,
            "outcome": self.outcome,
            "failure": self.result.failure,
            "fingerprint": self.fingerprint,
            "run": self.run,
            "notes": [*([description] if description else []), *self.result.notes],
            "metrics": self.result.metrics,
            "intervals": self.result.intervals,
            "gates": list(self.gates),
            "timings": self.result.timings,
            "ledger": [asdict(line) for line in self.result.ledger],
            "tables": [_cut(table) for table in self.result.tables],
            "plots": [asdict(p) for p in self.result.plots],
            "inputs": list(self.inputs),
            "environment": self.environment,
            "code": self.code,
            "spec": self.spec,
        }
        data: Fields = plain(said)
        return data


def write(folder: Path, report: Report) -> None:
    """Write ``report.json`` and ``report.html`` into ``folder``, which exists."""
    data = report.to_json()
    text = json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    (folder / "report.html").write_text(html(data, audio_root=report.audio_root), encoding="utf-8")


def html(data: Fields, *, audio_root: Path | None) -> str:
    """The page for ``data`` (of ``Report.to_json``): one file that asks nothing of any other."""
    clips = Clips(audio_root)
    style, script = (_own(name) for name in ("style.css", "script.js"))
    tables = [_shown(table, clips) for table in data["tables"]]
    further = [_shown(table, clips) for table in (_ledger(data), _inputs(data)) if table["rows"]]
    page = _environment().get_template("template.html")
    return page.render(
        report=data,
        took=_took(data["run"]),
        tables=tables,
        further=further,
        clips=clips,
        plots=[Markup(plots.svg(Plot(**p))) for p in data["plots"]],
        timings=sorted(data["timings"].items(), key=lambda item: -item[1]),
        spec_yaml=yaml.safe_dump(data["spec"], sort_keys=False, allow_unicode=True, width=100),
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
    )


def _environment() -> jinja2.Environment:
    loader = jinja2.FunctionLoader(_own)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"value": value, "size": size, "duration": duration, "moment": moment}
    return environment


def _own(name: str) -> str:
    return resources.files("runner.report").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    # by hash, not 'unsafe-inline': text that slipped past the escaping could still not run
    def allowed(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    own = f"style-src {allowed(style)}; script-src {allowed(script)}; media-src data:"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"


def _cut(table: Table) -> Fields:
    """The table as JSON, at most ``MAX_ROWS`` rows; where there is a status, those that are not ok come first."""
    rows, note = list(table.rows), table.note
    if "status" in table.columns:
        at = table.columns.index("status")
        rows.sort(key=lambda row: row[at] == "ok")
    if len(rows) > MAX_ROWS:
        first = "those that are not ok and then the first" if "status" in table.columns else "the first"
        left_out = f"{MAX_ROWS:,} of {len(rows):,} rows: {first}"
        note = f"{left_out}; {note}" if note else left_out
    return {**asdict(replace(table, rows=rows[:MAX_ROWS], note=note)), "total": len(rows)}


def _ledger(data: Fields) -> Fields:
    columns = ("what", "where", "wanted", "applied", "why", "parity_error", "saving")
    rows = [[line[c] for c in columns] for line in data["ledger"]]
    return {"title": "Ledger of optimisations", "columns": columns, "rows": rows, "audio": None}


def _inputs(data: Fields) -> Fields:
    columns = ("field", "ref", "files", "size", "digest")
    rows = [[entry.get(c) for c in columns] for entry in data["inputs"]]
    return {"title": "Inputs", "columns": (*columns[:3], "bytes", "digest"), "rows": rows, "audio": None}


def _shown(table: Fields, clips: Clips) -> Fields:
    """What the template needs to know beside the table itself."""
    return {**table, "players": _players(table, clips), "numeric": _numeric(table)}


def _players(table: Fields, clips: Clips) -> list[str | None]:
    """One data URI or None for each row."""
    if table["audio"] is None:
        return [None] * len(table["rows"])
    at = table["columns"].index(table["audio"])
    lies = table["clips"]
    return [clips.uri(lies.get(row[at], row[at])) for row in table["rows"]]


def _numeric(table: Fields) -> list[bool]:
    """Whether each column holds numbers, or nothing where there is none."""
    kinds = [{type(row[at]) for row in table["rows"]} - {type(None)} for at in range(len(table["columns"]))]
    return [bool(kind) and kind <= {int, float} for kind in kinds]


def _took(run: Mapping[str, Any]) -> float | None:
    """Seconds from start to end of the run, where both are known."""
    started, ended = run.get("started"), run.get("ended")
    if not started or not ended:
        return None
    return (datetime.fromisoformat(str(ended)) - datetime.fromisoformat(str(started))).total_seconds()


def plain(thing: Any) -> Any:
    """``thing`` in JSON types: numbers of any library as Python's, NaN and infinities as null, the rest as text."""
    if isinstance(thing, Mapping):
        return {_text(key): plain(item) for key, item in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [plain(item) for item in thing]
    if thing is None or isinstance(thing, bool):
        return thing
    if isinstance(thing, Integral):
        return int(thing)
    if isinstance(thing, Real):
        return float(thing) if math.isfinite(thing) else None
    return _text(thing)


def _text(thing: Any) -> str:
    return str(thing).encode("utf-8", "replace").decode()  # file names may hold bytes that are no UTF-8
