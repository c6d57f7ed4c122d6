"""Words with times as a Praat TextGrid: a tier of words, and one of characters where they have times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from runner.asr.words import Word

Interval = tuple[int, int, str]  # milliseconds


def render(words: Sequence[Word], *, end_s: float | None = None) -> str:
    """The file's content, in Praat's long form; tiers reach from 0 to ``end_s``, and pauses are empty intervals."""
    tiers = {"words": list(_ordered((word.start, word.end, word.word) for word in words))}
    chars = [(char.start, char.end, char.char) for word in words for char in word.chars]
    if chars:
        tiers["characters"] = list(_ordered(chars))
    ends = [tier[-1][1] for tier in tiers.values() if tier]
    end = max([*ends, 1, round(1000 * (end_s or 0))])
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += [*_range(0, end), "tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, tier) in enumerate(tiers.items(), start=1):
        whole = list(_filled(tier, end))
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += [*_range(0, end, indent=8), f"        intervals: size = {len(whole)}"]
        for place, (first, last, text) in enumerate(whole, start=1):
            lines += [f"        intervals [{place}]:", *_range(first, last, indent=12)]
            lines.append(f'            text = "{_escaped(text)}"')
    return "\n".join(lines) + "\n"


def _ordered(spans: Iterable[tuple[float, float, str]]) -> Iterator[Interval]:
    """Whole milliseconds; each interval has one at least, and begins no sooner than the last one ended."""
    clock = 0
    for start_s, end_s, text in spans:
        start = max(round(1000 * start_s), clock)
        clock = max(round(1000 * end_s), start + 1)
        yield start, clock, text


def _filled(tier: Sequence[Interval], end: int) -> Iterator[Interval]:
    clock = 0
    for start, last, text in tier:
        if start > clock:
            yield clock, start, ""
        yield start, last, text
        clock = last
    if clock < end:
        yield clock, end, ""


def _range(first: int, last: int, *, indent: int = 0) -> list[str]:
    return [f"{' ' * indent}xmin = {first / 1000:.3f}", f"{' ' * indent}xmax = {last / 1000:.3f}"]


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace('"', '""')
