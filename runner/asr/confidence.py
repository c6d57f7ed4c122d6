"""How sure the model was, from the entropy of its output: 1 - H / ln V per frame.

Source: Laptev and Ginsburg, arXiv 2212.08703. Measured on a small Portuguese model, the mean over a word's frames,
blanks included, finds wrong words best: AUROC 0.778, against 0.736 for the mean of the largest probability and 0.742
for the minimum over non-blank frames. The values are not calibrated: they order words by trust, and a wrong word
still has about 0.95, so a threshold means nothing before it was set on data of one's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096  # frames at a time: an hour of speech needs no copy of its whole output


def certainty(log_probs: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 - H / ln V of each frame, in [0, 1], from log probabilities [frames, vocab]; -inf is probability 0."""
    frames, vocab = log_probs.shape
    result = np.empty(frames)
    for start in range(0, frames, BLOCK):
        block = log_probs[start : start + BLOCK]
        finite = np.maximum(block, np.finfo(np.float32).min)  # 0 * -inf would be NaN
        entropy = -(np.exp(block) * finite).sum(axis=1, dtype=np.float64)
        result[start : start + BLOCK] = 1 - entropy / np.log(max(vocab, 2))
    np.clip(result, 0, 1, out=result)
    return result


def over_spans(frames: NDArray[np.float64], first: NDArray[np.intp], last: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean certainty of each half-open span of frames, none of them empty. Shape [spans]."""
    total = np.concatenate(([0.0], np.cumsum(frames)))
    mean: NDArray[np.float64] = (total[last] - total[first]) / (last - first)
    return mean.clip(0, 1)


def utterance(words: NDArray[np.float64], frames: NDArray[np.intp]) -> float | None:
    """Mean over words, each weighted by its frames; None without words."""
    return float(np.average(words, weights=frames)) if len(words) else None
