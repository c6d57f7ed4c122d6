"""How far an error rate would move with other recordings of the same kind: percentile bootstrap over utterances."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
SEED = 0
CELLS = 4_000_000  # counts held at once: 32 MB


def interval(utterances: Mapping[tuple[int, int], int]) -> tuple[float, float] | None:
    """The 95% interval of errors / length over the whole corpus; None with fewer than two utterances.

    ``utterances`` says how often each (errors, length) occurs. To draw utterances with replacement is to draw the
    counts of these pairs from a multinomial distribution, so time and memory follow the pairs, not the corpus, and the
    order of the utterances does not matter. Resamples without any length (all references empty) are left out.
    """
    total = sum(utterances.values())
    if total < 2:
        return None
    pairs = np.array(sorted(utterances), dtype=np.int64)
    share = np.array([utterances[errors, length] for errors, length in pairs.tolist()]) / total
    random = np.random.default_rng(SEED)
    at_once = max(1, CELLS // len(pairs))
    sums = np.concatenate(
        [
            random.multinomial(total, share, size=min(at_once, RESAMPLES - start)) @ pairs
            for start in range(0, RESAMPLES, at_once)
        ]
    )
    sums = sums[sums[:, 1] > 0]
    if not len(sums):
        return None
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
