"""Which documents an epoch takes, and in what order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def epoch(sizes: Sequence[int], weights: Sequence[float], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Documents of one epoch as [N, 2] (source, row), shuffled.

    A weight of 2 takes each of a source's documents twice, one of 0.5 half of them, the other half in the next epoch:
    over many epochs every document of a source is taken equally often.
    """
    parts = []
    for source, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        turn = np.random.default_rng([seed, source]).permutation(size) / max(size, 1)  # the same in every epoch
        times = np.floor(weight * (epoch + 1) + turn).astype(np.int64) - np.floor(weight * epoch + turn).astype(
            np.int64
        )
        rows = np.repeat(np.arange(size), times)
        parts.append(np.stack([np.full(len(rows), source), rows], axis=1))
    taken = np.concatenate(parts)
    shuffled: NDArray[np.int64] = np.random.default_rng([seed, len(sizes), epoch, 1]).permutation(taken)
    return shuffled
