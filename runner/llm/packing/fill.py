"""Rows filled with whole documents: best fit, the long ones first, among a bounded number of documents at a time.

Each document goes into the fullest row that takes it (Johnson 1973: at most 11/9 of the rows that are needed, plus
4). Short documents stay in the order in which they come: sorted as well, a row would hold documents of one length, and
its step would learn from those alone. Documents come in windows of `look_ahead`, so that a stream is filled too, in the
memory of one window.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import count, islice

import numpy as np

SHORT = 8  # of at most 1/8 of a row: 0.3 to 0.6% more rows than with all sorted, for documents of 20 to 300 tokens

Arrived = tuple[int, int]  # number, from 0, and length of a document


def rows(lengths: Iterable[int], *, capacity: int, look_ahead: int, most_documents: int) -> Iterator[list[int]]:
    """Rows of at most ``capacity`` tokens and ``most_documents`` documents, by their numbers, the long ones first.

    ``lengths`` are of 1 to ``capacity`` tokens. A window's rows come in an order by chance, the same each time, so that
    no length comes before another. Its emptiest row is taken apart and filled again with the next window.
    """
    coming = enumerate(lengths)
    left: list[Arrived] = []
    for window in count():
        fresh = list(islice(coming, look_ahead))
        filled, emptiest = _best_fit(left + fresh, capacity=capacity, most_documents=most_documents)
        last = len(fresh) < look_ahead
        left = [] if last else emptiest
        again = left[0][0] if left else None
        for at in np.random.default_rng(window).permutation(len(filled)):
            if filled[at][0] != again:
                yield filled[at]
        if last:
            return


def _best_fit(pool: list[Arrived], *, capacity: int, most_documents: int) -> tuple[list[list[int]], list[Arrived]]:
    """All rows, and the documents of the one with the most space left, if any has space for one of those in ``pool``.

    O(log n) a document but for what a list takes to make space: open rows are found by the space in them, of which
    there are at most ``capacity`` sizes.
    """
    lengths = dict(pool)
    shortest = min(lengths.values(), default=0)
    filled: list[list[int]] = []
    opened: dict[int, list[list[int]]] = {}  # rows by the tokens that they still take
    spaces: list[int] = []  # its keys, sorted
    for number, length in sorted(pool, key=lambda one: -max(one[1], capacity // SHORT)):
        at = bisect_left(spaces, length)
        if at == len(spaces):
            row, space = [number], capacity - length
            filled.append(row)
        else:
            space = spaces[at]
            row = opened[space].pop()
            row.append(number)
            if not opened[space]:
                del opened[space], spaces[at]
            space -= length
        if space < shortest or len(row) == most_documents:
            continue
        if space not in opened:
            opened[space] = []
            insort(spaces, space)
        opened[space].append(row)
    emptiest = opened[spaces[-1]][-1] if spaces else []
    return filled, [(number, lengths[number]) for number in emptiest]
