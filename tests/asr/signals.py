"""Made-up CTC outputs for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runner.asr.alphabet import Alphabet

SYMBOLS = ("<pad>", "<s>", "</s>", "<unk>", "|", "a", "b", "l", "ç")
ALPHABET = Alphabet(texts=("", "", "", "", "", "a", "b", "l", "ç"), breaks=frozenset({4}), blank=0)


def log_softmax(scores: NDArray[np.floating]) -> NDArray[np.float32]:
    return (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).astype(np.float32)


def noise(seed: int, *, frames: int, vocab: int, scale: float = 4.0) -> NDArray[np.float32]:
    """Log probabilities of nothing in particular, the sharper the larger ``scale``. Shape [frames, vocab]."""
    return log_softmax(np.random.default_rng(seed).normal(size=(frames, vocab)) * scale)


def spoken(path: str | Sequence[int], *, share: float = 0.9) -> NDArray[np.float32]:
    """Log probabilities whose best path is ``path``: ids, or the signs of SYMBOLS with `_` for the blank."""
    letters = {symbol: id_ for id_, symbol in enumerate(SYMBOLS)} | {"_": 0, "?": 3}
    ids = [letters[sign] if isinstance(sign, str) else sign for sign in path]
    probabilities = np.full((len(ids), len(SYMBOLS)), (1 - share) / (len(SYMBOLS) - 1))
    probabilities[np.arange(len(ids)), ids] = share
    with np.errstate(divide="ignore"):
        return np.log(probabilities).astype(np.float32)
