"""From the model's output and a text to the words' times and scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.asr.align.by_torchaudio import best_path
from runner.asr.align.search import frames_needed
from runner.asr.align.text import Spelled, Speller, matched, spoken_signs
from runner.asr.trouble import RecordingError
from runner.asr.words import Path
from runner.schema.errors import JobError

Fields = dict[str, Any]
Rows = NDArray[np.float32]  # [frames, vocab], log-probabilities
Say = Callable[[str], str]

# Nats a frame by which a wildcard is behind the best symbol of that frame, whatever that is: it takes all sound that
# nothing else explains (a spoken letter costs 3 and more as a blank), leaves silence to the blank, and known letters
# to those that were heard.
WILDCARD_COST = 0.1
NOTHING: Fields = {"text": "", "confidence": None, "words": [], "score": None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """When a frame is, in seconds of the file: rounded to milliseconds, never behind the recording's end."""

    frame_s: float
    offset_s: float
    end_s: float

    def __call__(self, frame: int) -> float:
        return round(min(self.offset_s + frame * self.frame_s, self.end_s), 3)


def quiet_row(*, vocab: int, blank: int, delimiter: int | None, never: float) -> Rows:
    """Log-probabilities of a frame of silence: the blank, or a delimiter wherever the text has one. [1, vocab]."""
    row = np.full((1, vocab), never, np.float32)
    row[0, [blank, blank if delimiter is None else delimiter]] = 0.0
    return row


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """The words of a text and their symbols on the best path: those of word i are ``path``'s ``spans[i]``."""

    words: tuple[Spelled, ...]
    spans: tuple[slice, ...]
    path: Path


def located(rows: Rows, text: str | None, *, speller: Speller, blank: int, say: Say | None) -> Located:
    """Where each word of ``text`` is said. Raises RecordingError where it cannot be aligned, JobError (NaN)."""
    found = [speller.spell(word, spoken) for word, spoken in matched(_given(text), say)]
    words = tuple(word for word in found if word is not None)
    symbols, spans = _symbols(words, speller)
    if not np.isfinite(rows.max(axis=1)).all():
        raise JobError("the model's output holds NaN or no probability at all; try precision: fp32", failure="NaN")
    needed = frames_needed(symbols)
    if needed > len(rows):
        message = f"its text has {len(symbols)} symbols, which need {needed} frames, but there are {len(rows)}"
        raise RecordingError("unaligned", "text_too_long", message)
    path = best_path(_with_wildcard(rows, symbols, speller.wildcard), symbols, blank=blank)
    return Located(words=words, spans=spans, path=path)


def aligned(
    rows: Rows, text: str | None, *, speller: Speller, blank: int, say: Say | None, clock: Clock, chars: bool
) -> Fields:
    """The fields `text`, `score`, `confidence` and `words` of one recording; `words` is empty for a text without any.

    A score is the mean log-probability of the symbols over the frames that the best path gives them, a confidence the
    same as a probability; both are None where all is wildcards. Raises as ``located`` does.
    """
    found = located(rows, text, speller=speller, blank=blank, say=say)
    if not found.words:
        return dict(NOTHING)
    scored = _Scored(rows, found.path, wildcard=speller.wildcard)
    return {
        "text": " ".join(word.word for word in found.words),
        **scored.over(np.concatenate([np.arange(span.start, span.stop) for span in found.spans])),
        "words": [
            _word(word, span, path=found.path, scored=scored, clock=clock, chars=chars)
            for word, span in zip(found.words, found.spans, strict=True)
        ],
    }


def unheard(text: str | None) -> Fields:
    """The same for a recording in which nothing can be heard."""
    words = [word for word in _given(text).split() if spoken_signs(word)]
    if words:
        raise RecordingError("unaligned", "silent", f"nothing can be heard, but its text has {len(words)} words")
    return dict(NOTHING)


def _given(text: str | None) -> str:
    if text is None:
        raise RecordingError("unaligned", "no_text", "the manifest has no text for this recording")
    return text


def _symbols(words: Sequence[Spelled], speller: Speller) -> tuple[NDArray[np.intp], tuple[slice, ...]]:
    """All symbols in a row, with the delimiter between words; where each word's are."""
    row: list[int] = []
    spans = []
    for word in words:
        if row and speller.apart and speller.delimiter is not None:
            row.append(speller.delimiter)
        spans.append(slice(len(row), len(row) + len(word.symbols)))
        row += word.symbols
    return np.array(row, np.intp), tuple(spans)


def _with_wildcard(rows: Rows, symbols: NDArray[np.intp], wildcard: int) -> Rows:
    """``rows`` with the wildcard's log-probability as a last column, where ``symbols`` have one."""
    if wildcard not in symbols:
        return rows
    return np.column_stack([rows, rows.max(axis=1) - np.float32(WILDCARD_COST)])


class _Scored:
    """Log-probability and frames of each symbol of a path."""

    def __init__(self, rows: Rows, path: Path, *, wildcard: int) -> None:
        self.frames = path.last - path.first
        known = path.ids != wildcard
        self._count = self.frames * known
        at = np.repeat(np.where(known, path.ids, 0), self.frames)
        frame = np.repeat(path.first - np.cumsum(self.frames) + self.frames, self.frames) + np.arange(len(at))
        edges = np.cumsum(self.frames) - self.frames
        self._sum = np.add.reduceat(rows[frame, at].astype(np.float64), edges) * known

    def over(self, which: NDArray[np.intp] | slice) -> Fields:
        """Mean log-probability of some symbols, and what it is as a probability."""
        count = int(self._count[which].sum())
        if not count:
            return {"score": None, "confidence": None}
        mean = float(self._sum[which].sum()) / count
        return {"score": round(mean, 4), "confidence": round(math.exp(mean), 4)}


def _word(word: Spelled, span: slice, *, path: Path, scored: _Scored, clock: Clock, chars: bool) -> Fields:
    first, last = path.first[span].tolist(), path.last[span].tolist()
    found: Fields = {"word": word.word, "start": clock(first[0]), "end": clock(last[-1]), **scored.over(span)}
    if word.spoken != word.word:
        found["spoken"] = word.spoken
    if chars:
        found["chars"] = [
            {"char": text, "start": clock(start), "end": clock(end)}
            for text, start, end in zip(word.texts, first, last, strict=True)
            if text
        ]
    return found
