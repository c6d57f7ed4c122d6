"""A fast made-up engine whose sound is its text: each frame's level says which symbol is likely there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.asr.alphabet import Alphabet
from runner.asr.pieces import Setup, Source
from runner.asr.streaming.session import Session
from runner.asr.streaming.settings import settings
from tests.asr.signals import ALPHABET, SYMBOLS

RATE, STRIDE, RECEPTIVE = 16_000, 320, 400
LONG = 5 * RATE // 2
Samples = NDArray[np.float32]
Rows = NDArray[np.float32]


@dataclass(kw_only=True)
class Spelled:
    """Reads what ``sound`` wrote. In windows of more than LONG samples each frame's best symbol has the probability
    ``sure``, in others 0.9; ``lost`` is a letter that it misses in them."""

    sure: float = 0.9
    lost: str = "<s>"
    alphabet: Alphabet = ALPHABET
    blank: int = 0
    vocab: int = len(SYMBOLS)
    delimiter: int | None = 4

    def compute(self, windows: Sequence[Samples]) -> list[Rows]:
        return [self._rows(window) for window in windows]

    def _rows(self, window: Samples) -> Rows:
        frames = (len(window) - RECEPTIVE) // STRIDE + 1
        ids = np.rint(window[np.arange(frames) * STRIDE] * 100).astype(int)
        share = self.sure if len(window) > LONG else 0.9
        if len(window) > LONG:
            ids[ids == SYMBOLS.index(self.lost) + 1] = 0
        rows = np.full((frames, self.vocab), np.log((1 - share) / (self.vocab - 1)), np.float32)
        rows[np.arange(frames), np.where(ids, ids - 1, 0)] = np.log(share)
        return rows


def sound(text: str) -> Samples:
    """Two frames of each letter, then two of the blank."""
    ids = [number for letter in text for number in (SYMBOLS.index(letter.replace(" ", "|")), 0)]
    return np.repeat((np.array(ids, np.float32) + 1) / 100, 2 * STRIDE)


def session(engine: Spelled, *, refine: bool, longest_s: float = 20.0) -> Session:
    """2 s of buffer, 0.5 s of look-ahead."""
    source = Source(
        folder="", rate=RATE, stride=STRIDE, receptive=RECEPTIVE, waveform=True, normalise=False, mask=False
    )
    setup = Setup(
        source=source,
        task="ctc",
        precision="fp32",
        device="cpu",
        threads=1,
        timestamps="word",
        silence_db=-60.0,
    )
    how = settings(
        chunk_s=0.5,
        left_s=1.0,
        lookahead_s=0.5,
        after_text_s=1.2,
        longest_s=longest_s,
        refine=refine,
        rate=RATE,
        stride=STRIDE,
        receptive=RECEPTIVE,
    )
    return Session(engine, setup=setup, settings=how)


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), np.float32)
