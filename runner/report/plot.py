"""Bars and points as inline SVG: a few kB a plot, where matplotlib writes 20 to 100 and takes 0.5 s to load."""

from __future__ import annotations

import math
from html import escape

from runner.context import Plot
from runner.report.text import value

WIDTH, HEIGHT = 440, 250  # user units, about the pixels of a phone, so that text keeps its size there
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 44
MAX_LABELS = 8


def svg(plot: Plot) -> str:
    """The plot as one ``<svg>``; points that are no finite numbers are left out and counted below it."""
    pairs = [(x, y) for x, y in zip(plot.x, plot.y, strict=True) if _finite(y) and (plot.kind == "bar" or _finite(x))]
    missing = len(plot.y) - len(pairs)
    label = escape(f"{plot.title}: {plot.y_label} by {plot.x_label}")
    note = (
        f'<text class="quiet" x="{WIDTH - RIGHT}" y="{TOP + 8}" text-anchor="end">{missing} without a number</text>'
        if missing
        else ""
    )
    body = (
        _marks(plot, pairs)
        if pairs
        else f'<text class="quiet" x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">no data</text>'
    )
    names = (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:g}" y="{HEIGHT - 6}" text-anchor="middle">{escape(plot.x_label)}</text>'
        f'<text transform="translate(12 {(TOP + HEIGHT - BOTTOM) / 2:g}) rotate(-90)" text-anchor="middle">'
        f"{escape(plot.y_label)}</text>"
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{body}{names}{note}</svg>'


def _marks(plot: Plot, pairs: list[tuple[object, float]]) -> str:
    low, high, ticks = axis([y for _, y in pairs], zero=plot.kind == "bar")

    def place(y: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (y - low) / (high - low))

    lines = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place(t):.1f}" y2="{place(t):.1f}"/>'
        f'<text class="quiet" x="{LEFT - 5}" y="{place(t) + 4:.1f}" text-anchor="end">{value(t)}</text>'
        for t in ticks
    )
    drawn = [(x, y, place(y)) for x, y in pairs]
    return lines + (_bars(drawn, place(0)) if plot.kind == "bar" else _points(drawn))


def _bars(drawn: list[tuple[object, float, float]], base: float) -> str:
    step = (WIDTH - LEFT - RIGHT) / len(drawn)
    every = math.ceil(len(drawn) / MAX_LABELS)
    room = max(3, int(every * step / 6.5))  # characters that fit between two labels
    parts = []
    for i, (x, y, top) in enumerate(drawn):
        name = value(x)
        left, width = LEFT + i * step + 0.1 * step, 0.8 * step
        title = f"<title>{escape(name)}: {value(y)}</title>"
        parts.append(
            f'<rect class="mark" x="{left:.1f}" y="{min(top, base):.1f}" width="{width:.1f}" '
            f'height="{abs(base - top):.1f}">{title}</rect>'
        )
        if i % every == 0:
            short = name if len(name) <= room else name[: room - 1] + "…"
            parts.append(
                f'<text class="quiet" x="{left + width / 2:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">'
                f"{escape(short)}</text>"
            )
    return "".join(parts)


def _points(drawn: list[tuple[object, float, float]]) -> str:
    numbers = [float(x) for x, _, _ in drawn]  # type: ignore[arg-type]  # finite numbers: svg() left the others out
    low, high, ticks = axis(numbers, zero=False)

    def place(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - low) / (high - low)

    names = (
        f'<text class="quiet" x="{place(t):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{value(t)}</text>'
        for t in ticks
    )
    marks = (
        f'<circle class="mark" cx="{place(x):.1f}" cy="{top:.1f}" r="3"><title>{value(x)}: {value(y)}</title></circle>'
        for x, (_, y, top) in zip(numbers, drawn, strict=True)
    )
    return "".join((*names, *marks))


def axis(values: list[float], *, zero: bool) -> tuple[float, float, list[float]]:
    """(lowest, highest, ticks) of an axis over ``values`` in steps of 1, 2 or 5 times a power of ten."""
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    largest = max(abs(low), abs(high))
    if high - low <= 1e-9 * largest + 1e-30:  # as good as one value
        low, high = (low - largest / 2, high + largest / 2) if largest > 1e-30 else (0.0, 1.0)
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [float(f"{n * step:.12g}") for n in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def _finite(number: object) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)
