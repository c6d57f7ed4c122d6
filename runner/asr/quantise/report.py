"""What the report shows of the variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.asr.quantise.compare import Measured, Row
from runner.asr.quantise.maker import Done
from runner.asr.quantise.stopwatch import BASELINE, Laps, record
from runner.context import LedgerLine, Plot, Table

COLUMNS = (
    "variant",
    "status",
    "MB",
    "times smaller",
    "WER %",
    "rise, points",
    "from",
    "to",
    "texts changed",
    "times faster",
    "p50 ms",
    "p95 ms",
    "real-time factor",
)


def tables(rows: Sequence[Row], rest: Sequence[Done], *, before: Measured, size: int) -> tuple[Table, ...]:
    """All variants below the unquantised model."""
    timed = record([row.laps for row in rows])
    first = ("unquantised", "ok", size / 1e6, 1.0, 100 * before.wer, None, None, None, None, 1.0)
    shown = [(*first, *_speed(timed["baseline"]))]
    for row in rows:
        low, high = row.rise.interval or (None, None)
        errors = (100 * row.measured.wer, 100 * row.rise.wer, _points(low), _points(high), row.rise.changed)
        kept = (row.name, "ok", row.done.bytes / 1e6, row.compression, *errors, row.laps.speedup)
        shown.append((*kept, *_speed(timed["variants"][row.name])))
    shown += [(done.name, done.status, *[None] * (len(COLUMNS) - 2)) for done in rest]
    threads = f"{timed['threads']} thread{'' if timed['threads'] == 1 else 's'}"
    note = (
        f"speed against {BASELINE}; {timed['recordings']} recordings {timed['rounds']} times each in turns on "
        f"{threads}; rises with 95% bootstrap intervals over recordings, both models on the same ones"
    )
    return (Table(title="Variants", columns=COLUMNS, rows=[tuple(map(_short, row)) for row in shown], note=note),)


def _points(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _speed(figures: dict[str, Any]) -> tuple[Any, ...]:
    return figures["p50_ms"], figures["p95_ms"], figures["real_time_factor"]


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def plots(rows: Sequence[Row]) -> tuple[Plot, ...]:
    """Size and speed."""
    names = [row.name for row in rows]
    smaller, faster = [row.compression for row in rows], [row.laps.speedup for row in rows]
    return (
        _bars("Times smaller than the unquantised file", names, smaller),
        _bars("Times faster than plain transformers in fp32", names, faster),
    )


def _bars(title: str, names: list[str], values: list[float]) -> Plot:
    return Plot(title=title, kind="bar", x=list(names), y=values, x_label="variant", y_label="times")


def ledger(rows: Sequence[Row], rest: Sequence[Done]) -> tuple[LedgerLine, ...]:
    """Each variant: what it is, and what it saves."""
    made = [
        LedgerLine(
            what=row.name,
            where="model",
            applied=True,
            why=f"{row.done.what}; measured here in {row.measured.precision.removesuffix(f': {row.done.what}')}",
            parity_error=max((one["difference"] for one in row.done.parity), default=None),
            saving=f"{row.compression:.2f} times smaller, {_faster(row.laps)}",
        )
        for row in rows
    ]
    return (*made, *(LedgerLine(what=d.name, where="model", applied=False, why=d.why) for d in rest))


def _faster(laps: Laps) -> str:
    return f"{laps.speedup:.2f} times the speed of plain transformers in fp32"
