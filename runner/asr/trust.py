"""Whether confidence can be trusted: words that are known to be right or wrong, and what they say about it."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jiwer
import numpy as np
from numpy.typing import NDArray

from runner.asr.normalise import accent_sensitive
from runner.context import Plot, Table

BINS = 10


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Words with the confidence that they were given. Shape of each: [words]."""

    own: NDArray[np.float64]
    right: NDArray[np.bool_]
    recording: NDArray[np.int64]  # which one each belongs to


class Judge:
    """Takes recordings one by one and holds 17 bytes a word."""

    def __init__(self) -> None:
        self._own, self._right, self._recording = array("d"), array("b"), array("q")
        self._recordings = 0

    def add(self, words: Sequence[Mapping[str, Any]], reference: str) -> None:
        """Count a recording's ``words``, as `transcripts.jsonl` has them, against what was said."""
        for word, right in zip(words, judge([word["word"] for word in words], reference), strict=True):
            if right is not None:
                self._own.append(word["confidence"])
                self._right.append(right)
                self._recording.append(self._recordings)
        self._recordings += 1

    def result(self) -> Judged:
        """All words so far."""
        return Judged(
            own=np.array(self._own),
            right=np.array(self._right, dtype=bool),
            recording=np.array(self._recording, dtype=np.int64),
        )


def judge(words: Sequence[str], reference: str) -> list[bool | None]:
    """Of each word whether it was said there; None for one of signs only.

    Texts are aligned in the accent-sensitive convention. It may make several words of one: all must be right then.
    """
    parts = [accent_sensitive(word).split() for word in words]
    heard = [part for inner in parts for part in inner]
    right = _right(heard, accent_sensitive(reference).split())
    result: list[bool | None] = []
    at = 0
    for inner in parts:
        result.append(all(right[at : at + len(inner)]) if inner else None)
        at += len(inner)
    return result


def _right(heard: list[str], said: list[str]) -> list[bool]:
    if heard == said:
        return [True] * len(heard)
    if not heard or not said:
        return [False] * len(heard)
    right = [False] * len(heard)
    for chunk in jiwer.process_words(" ".join(said), " ".join(heard)).alignments[0]:
        if chunk.type == "equal":
            right[chunk.hyp_start_idx : chunk.hyp_end_idx] = [True] * (chunk.hyp_end_idx - chunk.hyp_start_idx)
    return right


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Words of like confidence."""

    words: int
    confidence: float  # mean
    right: float  # share


@dataclass(frozen=True, kw_only=True)
class Trust:
    """How far confidence is from the share of words that are right."""

    words: int
    wrong: int
    ece: float | None  # expected calibration error over bins; None without words
    auroc: float | None  # for wrong words: 0.5 is chance; None when all or none are wrong
    bins: tuple[Bin, ...]


def trust(judged: Judged) -> Trust:
    """Of words whose confidence is final."""
    return Trust(
        words=len(judged.right),
        wrong=int((~judged.right).sum()),
        ece=calibration_error(judged.own, judged.right) if len(judged.right) else None,
        auroc=area_under_roc(judged.own, judged.right),
        bins=tuple(bins(judged.own, judged.right)),
    )


def bins(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> list[Bin]:
    """Words by tenths of confidence; empty tenths are left out."""
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Bin(words=int(inside.sum()), confidence=float(confidence[inside].mean()), right=float(right[inside].mean()))
        for tenth in range(BINS)
        if (inside := which == tenth).any()
    ]


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Expected calibration error: |mean confidence - share right| over tenths, weighted by their words."""
    found = bins(confidence, right)
    return sum(b.words * abs(b.confidence - b.right) for b in found) / sum(b.words for b in found)


def area_under_roc(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float | None:
    """How often a wrong word has less confidence than a right one, equal ones counting half."""
    wrong, fine = np.sort(confidence[~right]), confidence[right]
    if not len(wrong) or not len(fine):
        return None
    above = len(wrong) - np.searchsorted(wrong, fine, side="right")  # wrong words that are surer than each right one
    below = np.searchsorted(wrong, fine, side="left")
    return float((below + 0.5 * (len(wrong) - above - below)).sum() / (len(wrong) * len(fine)))


def table(found: Trust) -> Table:
    """For the report: what words of like confidence were worth."""
    return Table(
        title="Confidence held against the texts",
        columns=("mean confidence", "share right", "words"),
        rows=[(b.confidence, b.right, b.words) for b in found.bins],
        note=f"{found.words} words, {found.wrong} of them wrong; words that were missed have no confidence",
    )


def reliability(found: Trust) -> Plot:
    """The same as points: calibrated ones lie where both are equal."""
    return Plot(
        title="Reliability",
        kind="scatter",
        x=[b.confidence for b in found.bins],
        y=[b.right for b in found.bins],
        x_label="mean confidence of words",
        y_label="share that is right",
    )
