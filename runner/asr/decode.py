"""From the CTC output of one recording to its text, words, times and confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runner.asr import confidence
from runner.asr.alphabet import Alphabet
from runner.asr.calibration import Calibration
from runner.asr.language.beam import search
from runner.asr.language.fusion import Fusion
from runner.asr.words import Char, Path, Span, Word, spans
from runner.schema.errors import JobError

Timestamps = Literal["none", "word", "char"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """What was said. ``text`` is the words joined by single spaces; ``words`` is empty without timestamps."""

    text: str
    confidence: float | None  # mean over words weighted by their frames; None without words
    words: tuple[Word, ...] = ()
    language: str | None = None  # of most of it, from models that tell


def decode(
    log_probs: NDArray[np.float32],
    *,
    alphabet: Alphabet,
    beam_size: int = 1,
    fusion: Fusion | None = None,
    calibration: Calibration | None = None,
    frame_s: float,
    offset_s: float = 0.0,
    end_s: float | None = None,
    timestamps: Timestamps = "word",
) -> Decoded:
    """Text, words, times and confidence of one recording.

    ``log_probs`` is [frames, vocab], natural logarithms, only frames of real audio. A frame lasts ``frame_s`` seconds
    and the first one starts at ``offset_s``; times are on that grid, rounded to milliseconds, monotonic, and never
    beyond ``end_s`` (the end of the recording, for models whose last frame reaches over it). ``beam_size`` 1 is
    greedy; ``fusion`` needs more. Confidence means what ``calibration`` makes of it, without one only an order. Raises
    JobError (NaN) when the model's output holds NaN, or a frame without any probability.
    """
    assert log_probs.ndim == 2 and log_probs.shape[1] == len(alphabet.texts), "output and alphabet do not match"
    if not np.isfinite(log_probs.max(axis=1)).all():
        raise JobError("the model's output holds NaN or no probability at all; try precision: fp32", failure="NaN")
    best = (
        greedy(log_probs, blank=alphabet.blank)
        if beam_size == 1
        else search(log_probs, blank=alphabet.blank, beam_size=beam_size, fusion=fusion)
    )
    found = list(spans(best, alphabet=alphabet))
    if not found:
        return Decoded(text="", confidence=None)
    first = np.array([span.first for span in found])
    last = np.array([span.last for span in found])
    sure = confidence.over_spans(confidence.certainty(log_probs), first, last)
    if calibration is not None:
        sure = calibration.apply(sure)
    whole = confidence.utterance(sure, last - first)
    text = " ".join(span.text(lower=alphabet.lower) for span in found)
    if timestamps == "none":
        return Decoded(text=text, confidence=_rounded(whole))
    clock = _Clock(frame_s=frame_s, offset_s=offset_s, end_s=end_s)
    words = tuple(
        _word(span, clock, sure=float(value), lower=alphabet.lower, chars=timestamps == "char")
        for span, value in zip(found, sure, strict=True)
    )
    return Decoded(text=text, confidence=_rounded(whole), words=words)


def greedy(log_probs: NDArray[np.float32], *, blank: int) -> Path:
    """The most probable symbol of each frame, repeats collapsed, then blanks dropped."""
    best = log_probs.argmax(axis=1)
    if not len(best):
        return Path(ids=best, first=best, last=best)
    first = np.flatnonzero(np.concatenate(([True], best[1:] != best[:-1])))
    last = np.append(first[1:], len(best))
    kept = best[first] != blank
    return Path(ids=best[first][kept], first=first[kept], last=last[kept])


@dataclass(frozen=True, kw_only=True)
class _Clock:
    frame_s: float
    offset_s: float
    end_s: float | None

    def __call__(self, frame: int) -> float:
        time = self.offset_s + frame * self.frame_s
        return round(time if self.end_s is None else min(time, self.end_s), 3)


def _word(span: Span, clock: _Clock, *, sure: float, lower: bool, chars: bool) -> Word:
    spelled = tuple(
        Char(char=text.lower() if lower else text, start=clock(first), end=clock(last))
        for text, first, last in (span.symbols if chars else ())
    )
    return Word(
        word=span.text(lower=lower),
        start=clock(span.first),
        end=clock(span.last),
        confidence=round(sure, 4),
        chars=spelled,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
