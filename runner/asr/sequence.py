"""Text of sequence models: stretches with times, joined across windows by the middle of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runner.asr.decode import Decoded
from runner.asr.pieces import Said, Setup
from runner.asr.windows import Window
from runner.asr.words import Word


def kept(said: Sequence[Said], window: Window, *, first: int, setup: Setup) -> list[Said]:
    """What was said in the part that ``window`` keeps; ``first`` is the recording's first sample in its file."""
    frame_s = setup.source.stride / setup.source.rate
    start = first / setup.source.rate
    low = start + window.keep_from * frame_s if window.keep_from else float("-inf")
    high = float("inf") if window.keep_to is None else start + window.keep_to * frame_s
    return [s for s in said if low <= (s.start + s.end) / 2 < high]


def decoded_of(said: Sequence[Said], *, setup: Setup) -> Decoded:
    """The result of one recording. Words are weighted by their length for its confidence, as CTC words are."""
    spoken = [s for s in said if s.text.strip()]
    if not spoken:
        return Decoded(text="", confidence=None)
    text = " ".join("".join(s.text for s in spoken).split())
    weights = [max(s.end - s.start, 0.02) for s in spoken]
    own = [s.confidence for s in spoken]
    values = own if setup.calibration is None else setup.calibration.apply(np.array(own)).tolist()
    sure = sum(value * w for value, w in zip(values, weights, strict=True)) / sum(weights)
    wanted = setup.timestamps != "none" and all(s.timed for s in spoken)
    words = tuple(
        Word(word=s.text.strip(), start=round(s.start, 3), end=round(s.end, 3), confidence=round(value, 4))
        for s, value in zip(spoken, values, strict=True)
    )
    return Decoded(text=text, confidence=round(sure, 4), words=words if wanted else ())
