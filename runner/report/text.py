"""Numbers and durations as people read them. Shared by the page and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any


def value(thing: Any) -> str:
    """``thing`` in a few characters: floats to four digits, thousands set apart, mappings as ``key value`` pairs."""
    if thing is None or isinstance(thing, bool):
        return {None: "–", True: "yes", False: "no"}[thing]
    if isinstance(thing, (int, float)):
        return f"{thing:,.0f}" if abs(thing) >= 10_000 else f"{thing:.4g}"
    if isinstance(thing, Mapping):
        return ", ".join(f"{key} {value(item)}" for key, item in thing.items())
    if isinstance(thing, (list, tuple)):
        return ", ".join(value(item) for item in thing)
    return str(thing)


def telling(metrics: Mapping[str, Any]) -> list[str]:
    """Names of the figures among ``metrics``, what is measured (error rates, seconds) before what is counted."""
    measured = [name for name, item in metrics.items() if isinstance(item, float)]
    return measured + [name for name, item in metrics.items() if type(item) is int]


def duration(seconds: float | None) -> str:
    """Seconds as ``4.2 ms``, ``3.1 s``, ``2 min 5 s`` or ``3 h 20 min``."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def moment(time: str) -> str:
    """An ISO 8601 time as ``2026-11-22 11:12 UTC``; anything else as it is."""
    try:
        when = datetime.fromisoformat(time)
    except ValueError:
        return time
    return f"{when:%Y-%m-%d %H:%M} UTC" if when.utcoffset() == timedelta(0) else f"{when:%Y-%m-%d %H:%M %z}".strip()
