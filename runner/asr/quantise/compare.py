"""Variants side by side: size, errors and their rise over the unquantised model's, speed; and which one is picked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runner.asr.bootstrap import interval
from runner.asr.quantise.maker import Done
from runner.asr.quantise.stopwatch import Laps
from runner.asr.recordings import Recording
from runner.asr.score import Scorer, Scores, UtteranceScore

Fields = dict[str, Any]
Pick = Literal["smallest", "fastest", "most_accurate"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one form of the model made of the validation data."""

    scored: Mapping[int, UtteranceScore]  # by position of the recording, those with a text that could be transcribed
    scores: Scores
    failed: int  # recordings
    precision: str  # what it was computed in here, and why

    @property
    def wer(self) -> float:
        """Accent-sensitive, over the corpus; 1 without a word to count by."""
        rate = self.scores.rates[0].words.rate
        return 1.0 if rate is None else rate


def measured(found: Sequence[Recording], records: Sequence[Fields], *, precision: str) -> Measured:
    """Score ``records``, one for each of ``found``."""
    scorer, scored = Scorer(), {}
    for item, (recording, record) in enumerate(zip(found, records, strict=True)):
        if recording.clip.text is not None and record["error"] is None:
            scored[item] = scorer.add(recording.clip.text, record["text"], key=f"{recording.key} [{item}]")
    failed = sum(record["error"] is not None for record in records)
    return Measured(scored=scored, scores=scorer.result(), failed=failed, precision=precision)


@dataclass(frozen=True, kw_only=True)
class Rise:
    """How much more is wrong than with the unquantised model, over the recordings that it could transcribe."""

    wer: float  # absolute: 0.01 is one point
    interval: tuple[float, float] | None  # 95%, bootstrap over recordings, both models on the same ones
    changed: int  # recordings with another text, or none
    recordings: int
    lost: int = 0  # of them, those that the variant could not transcribe: every word counts as wrong


def rise(before: Measured, after: Measured) -> Rise:
    """Hold ``after`` against ``before``."""
    pairs, changed, lost = Counter[tuple[int, int]](), 0, 0
    for item, was in before.scored.items():
        words, now = was.words.references, after.scored.get(item)
        errors = now.words.errors if now else max(words, was.words.errors)
        pairs[errors - was.words.errors, words] += 1
        changed += now is None or now.hypothesis != was.hypothesis
        lost += now is None
    words = sum(references * count for (_, references), count in pairs.items())
    return Rise(
        wer=sum(errors * count for (errors, _), count in pairs.items()) / max(1, words),
        interval=interval(pairs),
        changed=changed,
        recordings=len(before.scored),
        lost=lost,
    )


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant, made and measured."""

    done: Done
    measured: Measured
    rise: Rise
    laps: Laps
    compression: float  # times smaller than the unquantised weights' files

    @property
    def name(self) -> str:
        return self.done.name

    def metrics(self) -> dict[str, float]:
        """What gates look at."""
        return {"wer_rise": self.rise.wer, "compression": self.compression, "speedup": self.laps.speedup}


def pick(rows: Sequence[Row], by: Pick, *, limits: Mapping[str, float | None]) -> tuple[Row, list[str]]:
    """The variant to take, and what to say where none meets all of ``limits`` (`max_x` or `min_x` of a metric).

    Then it is the one that misses them least, so that its gates fail and say by how much.
    """
    meeting = [row for row in rows if not _missed(row, limits)]
    if meeting:
        return min(meeting, key=lambda row: _order(row, by)), []
    nearest = min(rows, key=lambda row: (sum(_missed(row, limits).values()), *_order(row, by)))
    return nearest, [_nearest(rows, limit, value) for limit, value in limits.items() if _unmet(rows, limit, value)] or [
        "each limit is met by some variant, but none meets all of them"
    ]


def _order(row: Row, by: Pick) -> tuple[float, ...]:
    size, speed, errors = row.done.bytes, -row.laps.speedup, row.rise.wer
    deaf = row.rise.lost == row.rise.recordings  # not even the smallest model is of use then
    return deaf, *{"smallest": (size, errors), "fastest": (speed, size), "most_accurate": (errors, size)}[by]


def _missed(row: Row, limits: Mapping[str, float | None]) -> dict[str, float]:
    """By how much ``row`` misses each limit that it misses; in shares of the limit, a rise in points of WER."""
    found = {}
    for name, limit in limits.items():
        if limit is None:
            continue
        by = _beyond(row, name, limit)
        if by > 0:
            found[name] = by * 100 if name == "max_wer_rise" else by / max(limit, 1e-9)
    return found


def _beyond(row: Row, name: str, limit: float) -> float:
    value = row.metrics()[name[4:]]
    return value - limit if name.startswith("max_") else limit - value


def _unmet(rows: Sequence[Row], name: str, limit: float | None) -> bool:
    return limit is not None and all(_beyond(row, name, limit) > 0 for row in rows)


def _nearest(rows: Sequence[Row], name: str, limit: float | None) -> str:
    assert limit is not None, "a limit that is not there is met"
    best = min(rows, key=lambda row: _beyond(row, name, limit))
    value, by = best.metrics()[name[4:]], _beyond(best, name, limit)
    side = "too high" if name.startswith("max_") else "too low"
    return f"no variant meets {name} {limit:g}: {best.name} comes nearest with {value:.4g}, {by:.4g} {side}"


def comparison(
    rows: Sequence[Row], rest: Sequence[Done], *, before: Measured, size: int, picked: str, by: Pick
) -> Fields:
    """What `comparison.json` says: sizes and errors. A clock told nothing of it but the pick, and that only where the
    fastest is asked for or `min_speedup` limits it."""
    return {
        "pick": by,
        "picked": picked,
        "normaliser": str(before.scores.rates[0].convention),
        "unquantised": {"bytes": size, **_errors(before)},
        "variants": [
            *(
                {
                    "variant": row.name,
                    "status": row.done.status,
                    "what": row.done.what,
                    "bytes": row.done.bytes,
                    "compression": round(row.compression, 3),
                    **_errors(row.measured),
                    "wer_rise": round(row.rise.wer, 6),
                    "wer_rise_interval": _rounded(row.rise.interval),
                    "texts_changed": row.rise.changed,
                    "texts_compared": row.rise.recordings,
                    **({"parity": list(row.done.parity)} if row.done.parity else {}),
                }
                for row in rows
            ),
            *({"variant": d.name, "status": d.status, "why": d.why} for d in rest),
        ],
    }


def _errors(found: Measured) -> Fields:
    words, characters = found.scores.rates[0].words, found.scores.rates[0].characters
    return {
        "wer": words.rate,
        "wer_interval": _rounded(words.interval),
        "words_wrong": words.counts.errors,
        "words": words.counts.references,
        "cer": characters.rate,
        "failed": found.failed,
    }


def _rounded(pair: tuple[float, float] | None) -> list[float] | None:
    return None if pair is None else [round(end, 6) for end in pair]
