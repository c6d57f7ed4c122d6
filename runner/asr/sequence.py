"""Text of sequence models: stretches with times, windows spliced at a word that both of them heard.

    window k      ... |a casa  de papel|é
    window k + 1             e |papel  é  boa ...      spliced at "papel", the shared word nearest to the seam

Times from attention jitter by some tenths of a second, so that a word at the seam may lie before it in one window and
behind it in the other. Of 297 words in windows of 10 s, read by a small trained model, 11 were there twice when each
window kept those whose middle lay in its own part, and none so; in windows of 6 s 19, and one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, product, takewhile

import numpy as np

from runner.asr.decode import Decoded
from runner.asr.pieces import Said, Setup
from runner.asr.windows import Window
from runner.asr.words import Word

Pair = tuple[int, int]
JITTER_S = 0.5  # two windows place one word at most this far apart


def kept(said: Sequence[Said], window: Window, *, first: int, setup: Setup) -> list[Said]:
    """What one window said, its context included, after an empty stretch for its seam with the window before.

    The stretch covers what both heard; the seam is its middle. ``first`` is the recording's first sample in its file.
    """
    if not window.keep_from:
        return list(said)
    source = setup.source
    start, middle = ((first + sample) / source.rate for sample in (window.first, window.keep_from * source.stride))
    return [Said(text="", start=start, end=2 * middle - start, confidence=0.0, language=None), *said]


def decoded_of(said: Sequence[Said], *, setup: Setup) -> Decoded:
    """The result of one recording from what ``kept`` returned for its windows, in order.

    Words are weighted by their length for its confidence, as CTC words are.
    """
    joined: list[Said] = []
    last: list[Said] = []
    for seam, window in _windows(said):
        last, words = _spliced(last, window, seam) if seam else (last, window)
        joined += last
        last = words
    spoken = list(_one_after_another(joined + last))
    if not spoken:
        return Decoded(text="", confidence=None)
    text = " ".join("".join(s.text for s in spoken).split())
    weights = [max(s.end - s.start, 0.02) for s in spoken]
    own = [s.confidence for s in spoken]
    values = own if setup.calibration is None else setup.calibration.apply(np.array(own)).tolist()
    sure = sum(value * w for value, w in zip(values, weights, strict=True)) / sum(weights)
    languages: dict[str | None, float] = {}
    for one, weight in zip(spoken, weights, strict=True):
        languages[one.language] = languages.get(one.language, 0) + weight
    timed = tuple(
        Word(word=s.text.strip(), start=round(s.start, 3), end=round(s.end, 3), confidence=round(value, 4))
        for s, value in zip(spoken, values, strict=True)
    )
    return Decoded(
        text=text,
        confidence=round(sure, 4),
        words=timed if setup.timestamps != "none" else (),
        language=max(languages, key=lambda name: languages[name]),
    )


def _windows(said: Sequence[Said]) -> Iterator[tuple[Said | None, list[Said]]]:
    """Each window's seam (None for the recording's first window) and words."""
    seam: Said | None = None
    words: list[Said] = []
    for one in said:
        if one.text.strip():
            words.append(one)
        elif not one.text:
            yield seam, words
            seam, words = one, []
    yield seam, words


def _spliced(left: list[Said], right: list[Said], seam: Said) -> tuple[list[Said], list[Said]]:
    """What to take of each: up to a word that they share, then on from there; without one by their times."""
    at, context = _middle(seam), (seam.end - seam.start) / 2
    most = min(JITTER_S, context)
    runs = [run for run in _runs(left, right, seam) if _apart(run, left, right) < most * len(run)]
    if runs:  # the longer, the less its times count: in "no, no" the first is near the second of the other window
        run = min(runs, key=lambda run: _apart(run, left, right) / len(run) ** 2)
        i, j = min(run, key=lambda pair: abs(_middle(left[pair[0]]) + _middle(right[pair[1]]) - 2 * at))
        return left[: i + 1], right[j + 1 :]
    left = [s for s in left if _middle(s) < at]
    end = max(left[-1].end, at - most) if left else at
    return left, [s for s in right if _middle(s) >= end]


def _one_after_another(said: Sequence[Said]) -> Iterator[Said]:
    """The same, no word beginning before the one in front of it ends, as two windows may have it."""
    end = 0.0
    for one in said:
        yield replace(one, start=max(one.start, end), end=max(one.end, end))
        end = max(one.end, end)


def _runs(left: list[Said], right: list[Said], seam: Said) -> Iterator[list[Pair]]:
    """Stretches of words that both have, as pairs of places; only near what both heard."""
    low, high = seam.start - JITTER_S, seam.end + JITTER_S
    near = [[i for i, s in enumerate(said) if low < _middle(s) < high] for said in (left, right)]
    same = {(i, j) for i, j in product(*near) if _letters(left[i]) == _letters(right[j])}
    for i, j in sorted(same):
        if (i - 1, j - 1) not in same:
            yield list(takewhile(same.__contains__, ((i + k, j + k) for k in count())))


def _apart(run: list[Pair], left: list[Said], right: list[Said]) -> float:
    """Seconds between the two places of a word, on average."""
    return sum(abs(_middle(left[i]) - _middle(right[j])) for i, j in run) / len(run)


def _middle(said: Said) -> float:
    return (said.start + said.end) / 2


def _letters(said: Said) -> str:
    return "".join(c for c in said.text.casefold() if c.isalnum())
