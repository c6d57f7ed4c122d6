"""Prefix beam search over CTC outputs: the most probable spelling, not the most probable path.

Source: Hannun et al. 2014 (arXiv 1408.2873). A spelling's probability is the sum over all its paths; each hypothesis
holds that sum twice, for paths that end in a blank and for paths that end in its last symbol. Where only the blank is
likely, what came before no longer matters to what follows, so the recording is cut there and each piece is searched by
itself: cost and memory follow the speech, not the length of the file.

With a language model or hotwords (``fusion``) what came before does matter: the beam is carried over such cuts, and
hypotheses are ranked by the sum of both scores, the model's own staying a sum over paths.

Speed: 1,500 frames of 45 symbols at beam 100 take 0.37 CPU-s on random output, where nothing can be
cut (one core of a shared server CPU; tests/bench/beam.py prints it), so numpy is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runner.asr.align.search import align
from runner.asr.language.fusion import Fusion, Guide
from runner.asr.words import Path

FLOOR = 9.2  # symbols e^-9.2 = 1e-4 times as probable as the frame's best are not tried
GAP = 16.0  # hypotheses e^-16 = 1e-7 times as probable as the best are dropped before the beam is full
LONGEST = 3000  # frames; a longer piece is cut at its surest blank, so that alignment takes 20 MB at most
Stretch = tuple[int, int, NDArray[np.intp]]  # half-open frames, and what is spelled in them
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, of no structure: spreads prefix hashes over 64 bits


def search(log_probs: NDArray[np.float32], *, blank: int, beam_size: int, fusion: Fusion | None = None) -> Path:
    """The best spelling that a beam of ``beam_size`` finds, and its most probable path through the frames."""
    found = []
    cut = _searched(log_probs, blank, beam_size) if fusion is None else _fused(log_probs, blank, beam_size, fusion)
    for start, stop, symbols in cut:
        path = align(log_probs[start:stop].astype(np.float64), symbols, blank=blank)
        found.append(Path(ids=path.ids, first=path.first + start, last=path.last + start))
    empty = np.empty(0, dtype=np.intp)
    return Path(
        ids=np.concatenate([empty, *(path.ids for path in found)]),
        first=np.concatenate([empty, *(path.first for path in found)]),
        last=np.concatenate([empty, *(path.last for path in found)]),
    )


def _searched(log_probs: NDArray[np.float32], blank: int, beam_size: int) -> Iterator[Stretch]:
    for start, stop in pieces(log_probs, blank=blank):
        symbols, _ = best_prefix(log_probs[start:stop].astype(np.float64), blank=blank, beam_size=beam_size)
        yield start, stop, symbols


def _fused(log_probs: NDArray[np.float32], blank: int, beam_size: int, fusion: Fusion) -> Iterator[Stretch]:
    """Stretches of pieces that are searched together. Between two of them only the best hypothesis goes on."""
    search = _Search(blank=blank, beam_size=beam_size, fusion=fusion)
    began = end = 0
    for start, stop in pieces(log_probs, blank=blank):
        if end and stop - began > LONGEST:
            yield began, end, search.settle()
            began = start
        began = began if end else start
        search.hear(log_probs[start:stop].astype(np.float64))
        end = stop
    if end:
        yield began, end, search.finish()[0]


def pieces(log_probs: NDArray[np.float32], *, blank: int) -> Iterator[tuple[int, int]]:
    """Half-open runs of frames in which something beside the blank is likely, none longer than LONGEST."""
    others = np.delete(log_probs, blank, axis=1).max(axis=1, initial=-np.inf)
    busy = others >= log_probs[:, blank] - FLOOR
    edges = np.flatnonzero(np.diff(busy, prepend=False, append=False))
    for begin, stop in edges.reshape(-1, 2).tolist():
        start = begin
        while stop - start > LONGEST:
            half = start + LONGEST // 2
            cut = half + int(log_probs[half : start + LONGEST, blank].argmax())
            yield start, cut
            start = cut + 1
        yield start, stop


def best_prefix(
    log_probs: NDArray[np.float64],
    *,
    blank: int,
    beam_size: int,
    fusion: Fusion | None = None,
    floor: float = FLOOR,
    gap: float = GAP,
) -> tuple[NDArray[np.intp], float]:
    """The best spelling of one piece and its score, a lower bound when hypotheses were dropped."""
    search = _Search(blank=blank, beam_size=beam_size, fusion=fusion, floor=floor, gap=gap)
    search.hear(log_probs)
    return search.finish()


class _Search:
    """A beam on its way through the frames."""

    def __init__(
        self, *, blank: int, beam_size: int, fusion: Fusion | None, floor: float = FLOOR, gap: float = GAP
    ) -> None:
        self._blank, self._size, self._fusion, self._floor, self._gap = blank, beam_size, fusion, floor, gap
        self._tree = _Tree()
        self._beam = _Beam.root(None if fusion is None else fusion.start())

    def hear(self, log_probs: NDArray[np.float64]) -> None:
        """Go on over one piece: before it, only the blank was likely."""
        self._beam = self._beam.rested()
        for frame in log_probs:
            likely = frame >= frame.max() - self._floor
            likely[self._blank] = False
            self._beam = _step(
                self._beam,
                self._tree,
                frame,
                np.flatnonzero(likely),
                blank=self._blank,
                beam_size=self._size,
                gap=self._gap,
                fusion=self._fusion,
            )

    def settle(self) -> NDArray[np.intp]:
        """The best spelling so far; what comes is searched behind it alone."""
        assert self._fusion is not None and self._beam.guide is not None, "without a fusion pieces are independent"
        best = int((self._beam.total + self._beam.guide.prior).argmax())
        found = self._tree.spelling(int(self._beam.node[best]))
        guide = self._beam.guide.take(np.array([best]))
        self._tree = _Tree()
        self._beam = _Beam.root(self._fusion.resume(guide))
        return found

    def finish(self) -> tuple[NDArray[np.intp], float]:
        """The best spelling when nothing follows, and its score."""
        total = self._beam.total
        if self._fusion is not None and self._beam.guide is not None:
            total = total + self._fusion.finish(self._beam.guide)
        best = int(total.argmax())
        return self._tree.spelling(int(self._beam.node[best])), float(total[best])


@dataclass(frozen=True, kw_only=True)
class _Beam:
    """Hypotheses side by side. Shape of each: [hypotheses]."""

    blank: NDArray[np.float64]  # log probability of the paths that end in a blank
    symbol: NDArray[np.float64]  # ... in the last symbol
    last: NDArray[np.intp]  # last symbol; -1 for the empty prefix
    node: NDArray[np.intp]  # place in the tree
    key: NDArray[np.uint64]  # hash of the prefix
    parent: NDArray[np.uint64]  # hash of the prefix without its last symbol
    guide: Guide | None  # what a fusion says of the prefix

    @classmethod
    def root(cls, guide: Guide | None) -> _Beam:
        none, key = np.array([-1]), np.ones(2, dtype=np.uint64)
        key[1] = 0  # the parent of the empty prefix, which no prefix has as its key
        return cls(
            blank=np.zeros(1),
            symbol=np.full(1, -np.inf),
            last=none,
            node=none,
            key=key[:1],
            parent=key[1:],
            guide=guide,
        )

    def rested(self) -> _Beam:
        """The same after frames in which only the blank was likely."""
        return replace(self, blank=self.total, symbol=np.full(len(self.symbol), -np.inf))

    @property
    def total(self) -> NDArray[np.float64]:
        return np.logaddexp(self.blank, self.symbol)


class _Tree:
    """Every prefix that was ever in the beam, as its parent's node and its last symbol."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._symbols: list[int] = []

    def grow(self, parents: NDArray[np.intp], symbols: NDArray[np.intp]) -> NDArray[np.intp]:
        start = len(self._parents)
        self._parents.extend(parents.tolist())
        self._symbols.extend(symbols.tolist())
        return np.arange(start, start + len(parents))

    def spelling(self, node: int) -> NDArray[np.intp]:
        symbols = []
        while node >= 0:
            symbols.append(self._symbols[node])
            node = self._parents[node]
        return np.array(symbols[::-1], dtype=np.intp)


def _step(
    beam: _Beam,
    tree: _Tree,
    frame: NDArray[np.float64],
    likely: NDArray[np.intp],
    *,
    blank: int,
    beam_size: int,
    gap: float,
    fusion: Fusion | None,
) -> _Beam:
    """One frame on: each hypothesis stays as it is or grows by one of the ``likely`` symbols."""
    total = beam.total
    stay_blank = total + frame[blank]
    stay_symbol = np.where(beam.last >= 0, beam.symbol + frame[beam.last], -np.inf)
    grown = total[:, None] + frame[likely]
    again = beam.last[:, None] == likely  # a symbol can follow itself only over a blank
    grown = np.where(again, beam.blank[:, None] + frame[likely], grown)
    child, row, column = _already_there(beam, likely)
    stay_symbol[child] = np.logaddexp(stay_symbol[child], grown[row, column])
    grown[row, column] = -np.inf
    scores = np.concatenate((np.logaddexp(stay_blank, stay_symbol), grown.ravel()))
    guide, growth = beam.guide, None
    if fusion is not None and guide is not None:
        growth = fusion.grow(guide, likely)
        scores += np.concatenate((guide.prior, growth.prior.ravel()))
    kept = np.flatnonzero((scores >= scores.max() - gap) & (scores > -np.inf))
    if len(kept) > beam_size:
        kept = np.sort(kept[np.argpartition(scores[kept], -beam_size)[-beam_size:]])
    size = len(total)
    old, new = kept[kept < size], kept[kept >= size] - size
    source, symbol = new // max(len(likely), 1), likely[new % max(len(likely), 1)]
    return _Beam(
        blank=np.concatenate((stay_blank[old], np.full(len(new), -np.inf))),
        symbol=np.concatenate((stay_symbol[old], grown.ravel()[new])),
        last=np.concatenate((beam.last[old], symbol)),
        node=np.concatenate((beam.node[old], tree.grow(beam.node[source], symbol))),
        key=np.concatenate((beam.key[old], (beam.key[source] + symbol.astype(np.uint64) + 1) * MULTIPLIER)),
        parent=np.concatenate((beam.parent[old], beam.key[source])),
        guide=None if guide is None or growth is None else guide.take(old).join(growth.take(new)),
    )


def _already_there(
    beam: _Beam, likely: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Growths that spell a hypothesis of the beam: its index, and the row and column of the growth."""
    order = np.argsort(beam.key)
    row = order[np.searchsorted(beam.key[order], beam.parent).clip(max=len(order) - 1)]
    column = np.searchsorted(likely, beam.last).clip(max=max(len(likely) - 1, 0))
    if not len(likely):
        return order[:0], order[:0], order[:0]
    child = np.flatnonzero((beam.key[row] == beam.parent) & (likely[column] == beam.last))
    return child, row[child], column[child]
