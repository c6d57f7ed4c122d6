"""Rows of results: one JSON object a line for each engine and pass, and a table of what falls short of the targets.

`ratio` is each other engine's time over this one's: above 1 where this one is faster. `share` is the work a pass has to
do at least, over its time, over the ceiling measured in the same run. Nothing but what was measured has a time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.kernels.bench.harness.case import Case
from runner.kernels.bench.harness.clock import MIB, Measured
from runner.kernels.bench.harness.gate import Gate
from runner.kernels.bench.harness.machine import Ceilings

VERSION = 1
SHARE = 0.85  # of copy bandwidth, for what is bound by memory
Row = dict[str, Any]


def unmeasured(kernel: str, case: Case, *, why: str, gate: Gate, machine: Mapping[str, Any]) -> Row:
    """A row that claims nothing."""
    return _start(kernel, case) | {"measured": False, "why": why} | _gate(gate) | dict(machine)


def measured(
    kernel: str,
    case: Case,
    found: Mapping[str, Measured],
    *,
    left_out: Mapping[str, str],
    errors: Mapping[str, float],
    gate: Gate,
    ceilings: Ceilings,
    machine: Mapping[str, Any],
) -> list[Row]:
    """A row for each pass and engine."""
    rows = []
    for which in case.passes:
        medians = {name: engine.summary(which)["median_ms"] for name, engine in found.items()}
        for name, engine in found.items():
            ratio = {other: round(ms / medians[name], 4) for other, ms in medians.items() if other != name}
            share = ceilings.share(case.bound, case.amount(which), medians[name])
            row = {"pass": which, "engine": name, "measured": True, **engine.summary(which), "ratio": ratio}
            row |= {"bound": case.bound, "share": round(share, 4), "peak_mib": round(engine.peaks[which] / MIB, 1)}
            row |= {"left_out": dict(left_out), "error": errors.get(name)} | _gate(gate)
            rows.append(_start(kernel, case) | row | dict(machine))
    return rows


def _start(kernel: str, case: Case) -> Row:
    dtype = str(case.dtype).removeprefix("torch.")
    return {"v": VERSION, "kernel": kernel, "case": case.name, "shape": dict(case.shape), "dtype": dtype}


def _gate(gate: Gate) -> Row:
    return {"gate": gate.why, "gate_passed": gate.passed}


def append(path: Path, rows: Sequence[Row]) -> None:
    """Add rows to a file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def peers_to_beat(case: Case, ratio: Mapping[str, float]) -> dict[str, float]:
    """The ratios that count: of the SDPA backends where there are any, else of all peers."""
    sdpa = {peer.name for peer in case.peers if peer.is_sdpa}
    return {name: value for name, value in ratio.items() if not sdpa or name in sdpa}


def marks(case: Case, row: Row) -> dict[str, float]:
    """How much of each target own row reaches; 1 and above is there."""
    beaten = peers_to_beat(case, row["ratio"])
    reached = {f"{name} x{case.target:g}": value / case.target for name, value in beaten.items()}
    if case.bound == "memory":
        reached[f"{SHARE:.0%} of copy bandwidth"] = row["share"] / SHARE
    return reached if row["pass"] in case.judged else {}


def table(judged: Sequence[tuple[Case, Row]], rest: Sequence[Row]) -> str:
    """What falls short first; then what was not measured, with the reason."""
    lines = []
    for case, row in judged:
        reached = marks(case, row)
        worst = min(reached, key=lambda name: reached[name], default="nothing to meet")
        value = reached.get(worst, float("inf"))
        verdict = f"short of {worst}: {value:.2f}" if value < 1 else f"meets {worst}: {value:.2f}"
        name = f"{row['kernel']}/{row['case']}"
        spread = f"{row['median_ms']:.3f} ms ({row['p20_ms']:.3f}-{row['p80_ms']:.3f})"
        line = f"{name:42} {row['pass']:8} {spread:28} {row['share']:5.0%} {row['peak_mib']:8.0f} MiB  {verdict}"
        lines.append((value, line))
    done = [line for _, line in sorted(lines, key=lambda pair: pair[0])]
    return "\n".join(done + [_not_measured(row) for row in rest])


def _not_measured(row: Row) -> str:
    name = f"{row['kernel']}/{row['case']}"
    return f"{name:42} not measured: {row['why']}; gate: {row['gate']}"
