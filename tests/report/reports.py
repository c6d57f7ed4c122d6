"""A report with everything in it, hostile names and texts among the rest."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.context import LedgerLine, Plot, Result, Table
from runner.report.build import Report

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "</title><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "--><iframe src=https://example.org>",
    "caf\udce9.wav",
    "a\x00b\x1b[31mred\u202egnp.exe",
)


def wav(seconds: float = 0.1) -> bytes:
    """A silent recording, 16-bit mono at 16 kHz."""
    data = b"\0\0" * int(16000 * seconds)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 28 + len(form) + len(data))
        + b"WAVE"
        + form
        + struct.pack("<4sI", b"data", len(data))
        + data
    )


def table(rows: list[tuple[Any, ...]], **options: Any) -> Table:
    return Table(title="Recordings", columns=("path", "status", "text", "wer"), rows=rows, audio="path", **options)


def report(**changes: Any) -> Report:
    """A whole report; ``changes`` replace fields of it, or of its result."""
    rows: list[tuple[Any, ...]] = [("a.wav", "ok", "o cão dorme", 0.25), ("b.wav", "decode_error", "", None)]
    result = Result(
        metrics={"wer": 0.25, "wer_counts": {"hits": 3, "substitutions": 1}, "nan": float("nan")},
        intervals={"wer": (0.125, 0.5)},
        ledger=(LedgerLine(what="precision", applied=True, why="bf16 in hardware", parity_error=0.001, saving="2x"),),
        tables=(table(rows),),
        plots=(
            Plot(title="Lengths", kind="bar", x=["0-1", "1-2"], y=[3, 5], x_label="seconds", y_label="files"),
            Plot(title="Errors", kind="scatter", x=[0.1, 0.9], y=[0.5, 0.0], x_label="confidence", y_label="wer"),
        ),
        timings={"decode": 0.5, "infer": 95.0},
        notes=("synthetic speech",),
        failure=None,
    )
    whole = Report(
        name="clips@v1",
        kind="asr-transcribe",
        outcome="published",
        spec={"kind": "asr-transcribe", "name": "clips", "decode": {"beam_size": 1}},
        fingerprint="ab" * 32,
        inputs=({"field": "model", "ref": "./model", "digest": "sha256:00", "files": 4, "size": 2_700_000},),
        environment={"python": "3.11", "packages": {"torch": "2.13.0"}},
        code={"version": "0.1.0", "commit": None, "dirty": False},
        run={"id": "r1", "started": "2026-11-22T11:00:00+00:00", "ended": "2026-11-22T11:02:05+00:00", "attempts": 1},
        gates=({"name": "max_wer", "limit": 0.3, "value": 0.25, "passed": True},),
        result=result,
    )
    ours = {name: changes.pop(name) for name in list(changes) if hasattr(whole, name)}
    return replace(whole, result=replace(result, **changes), **ours)


def hostile(text: str, root: Path) -> Report:
    """A report that says ``text`` wherever a report can say something."""
    return report(
        name=text,
        kind=text,
        spec={text: text, "list": [text]},
        inputs=({"field": text, "ref": text, "digest": text},),
        environment={text: text, "packages": {text: text}},
        code={text: text},
        run={"id": text, "host": text, "started": None},
        gates=({"name": text, "limit": 1, "value": None, "passed": False},),
        audio_root=root,
        metrics={text: text, "nested": {text: text}},
        intervals={text: (0.0, 1.0)},
        ledger=(LedgerLine(what=text, where=text, applied=False, why=text, saving=text),),
        tables=(Table(title=text, columns=(text, "status"), rows=[(text, text)] * 3, note=text, audio=text),),
        plots=(Plot(title=text, kind="bar", x=[text], y=[1.0], x_label=text, y_label=text),),
        timings={text: 1.0},
        notes=(text,),
        failure=text,
    )
