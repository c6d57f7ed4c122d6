"""What a stream is judged by, added up as it runs: how long words took, and how many that were shown changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from runner.asr.streaming.partial import Partial

Fields = dict[str, Any]
Histogram = Counter[float]  # value -> how often


class Measure:
    """Takes each partial of one stream in order; all of it is audio time, so it is the same on any machine."""

    def __init__(self) -> None:
        self._first: Histogram = Counter()  # seconds from a word's end to what was first shown in its place
        self._commit: Histogram = Counter()  # seconds from a word's end to its commit
        self._final: Histogram = Counter()  # seconds from an utterance's last word until it was found to have ended
        self._words = 0  # committed
        self._open: list[tuple[int, str, bool]] = []  # shown in a tail: place, word, whether it was the last one
        self._since: dict[int, float] = {}  # place in the tail -> what had been heard when something first stood there
        self._shown = self._changed = 0

    def take(self, partial: Partial) -> None:
        """Count one partial."""
        for place, word in enumerate(partial.committed, start=self._words):
            self._commit[_seconds(partial.heard - word.end)] += 1
            self._first[_seconds(self._since.pop(place, partial.heard) - word.end)] += 1
            self._changed += sum(changed(shown, word.word, last=last) for at, shown, last in self._open if at == place)
        self._words += len(partial.committed)
        self._open = [one for one in self._open if one[0] >= self._words]
        ended = [final for final in partial.finals if final.ended_by != "close"]  # which nobody waits for
        self._final.update(_seconds(final.decided - final.committed[-1].end) for final in ended)
        tail = partial.tail.split()
        self._open += [(self._words + i, word, i == len(tail) - 1) for i, word in enumerate(tail)]
        self._shown += len(tail)
        places = range(self._words, self._words + len(tail))  # what fell away begins anew
        self._since = {place: self._since.get(place, partial.heard) for place in places}

    def fields(self) -> Fields:
        """The sums of the whole stream; what was shown and never came counts as changed."""
        return {
            "shown_latency_s": as_json(self._first),
            "commit_latency_s": as_json(self._commit),
            "final_latency_s": as_json(self._final),
            "partial_words": self._shown,
            "partial_words_changed": self._changed + len(self._open),
        }


def _seconds(value: float) -> float:
    """To hundredths; a word may be shown before its end, so there are negative ones, but one zero."""
    return round(value, 2) + 0.0


def changed(shown: str, committed: str, *, last: bool) -> bool:
    """Whether a word of a tail was taken back. The last one may have been heard in part: it may grow."""
    return not committed.startswith(shown) if last else committed != shown


def as_json(histogram: Mapping[float, int]) -> dict[str, int]:
    """Values as texts, ascending."""
    return {f"{value:g}": histogram[value] for value in sorted(histogram)}


def add(into: Histogram, counts: Mapping[str, int]) -> None:
    """Add what ``as_json`` made."""
    for value, count in counts.items():
        into[float(value)] += count


def percentiles(histogram: Histogram) -> dict[str, float | None]:
    """`p50`, `p95` and `max`, each a value that occurred; None where nothing did."""
    return {name: quantile(histogram, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}


def quantile(histogram: Histogram, share: float) -> float | None:
    """The least value that ``share`` of all do not exceed."""
    least = share * sum(histogram.values())
    return next((value for value, count in _running(sorted(histogram.items())) if count >= least), None)


def _running(items: Iterable[tuple[float, int]]) -> Iterable[tuple[float, int]]:
    total = 0
    for value, count in items:
        total += count
        yield value, total
