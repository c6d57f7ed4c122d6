"""Where given symbols lie on the frame grid: the best CTC path that spells them (Viterbi), exact in bounded memory.

Shapes: T frames, L symbols. A path goes through 2L + 1 states, blank, first symbol, blank, ..., last symbol, blank; it
may skip a blank but the one between two equal symbols. States are kept in pairs, pair k being the k-th blank and the
symbol behind it, so that a step costs a few operations on rows of at most L + 1 numbers.

A frame's cost is how much less probable its symbol is than the best one of that frame. It is never below 0, so a
path's cost only grows. Long recordings are therefore searched twice: first among the pairs near the cheapest of each
frame, which gives some path, then among all whose cost does not exceed that path's: no better path can leave them.
Steps are not kept for all frames: those of a block are computed again, from costs kept at its start, when the path is
walked back, and then only for the pairs that lead to where it goes on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.asr.words import Path

Costs = NDArray[np.float64]
Steps = list[tuple[int, NDArray[np.uint8]]]  # by frame: first pair, a byte for each

SMALL = 1 << 24  # pairs x frames that are searched at once, two minutes of speech; takes as many bytes
BEAM = 100.0  # nats above the cheapest state: what is looked at to find some path
TRIM = 8  # frames between two looks at which pairs are left
# a step's byte: where the states of a pair were in the frame before, when not in themselves
BLANK_FROM_SYMBOL, SYMBOL_FROM_BLANK, SYMBOL_FROM_SYMBOL = 1, 2, 4


def align(log_probs: NDArray[np.floating], symbols: NDArray[np.intp], *, blank: int) -> Path:
    """The most probable path that collapses to ``symbols``, none of which is the blank.

    ``log_probs`` is [frames, vocab]; of equally probable paths the one that stays longer in the earlier state is
    taken. Raises ValueError when the frames are too few (each symbol needs one, and each pair of equal neighbours a
    blank between them), or when no path has a probability above 0.
    """
    if not len(symbols):
        return Path(ids=symbols, first=symbols, last=symbols)
    needed = frames_needed(symbols)
    if needed > len(log_probs):
        repeats = needed - len(symbols)
        raise ValueError(f"{len(symbols)} symbols with {repeats} repeats need {needed} frames, got {len(log_probs)}")
    lattice = _Lattice(log_probs, symbols, blank=blank)
    found = lattice.search(lattice.some_cost())
    if found is None:
        raise ValueError(f"{len(symbols)} symbols have no path with a probability above 0")
    return found


def frames_needed(symbols: NDArray[np.intp]) -> int:
    """The fewest frames that ``symbols`` fit into."""
    return len(symbols) + int((symbols[1:] == symbols[:-1]).sum())


@dataclass(kw_only=True)
class _Front:
    """Costs of the best paths into the pairs [lo, hi) of one frame, in arrays that begin with pair ``base``.

    The two pairs beside them are there too, and infinite.
    """

    base: int
    lo: int
    hi: int
    blanks: Costs
    symbols: Costs

    def part(self, lo: int, hi: int) -> _Front:
        """A copy of what lies in [lo, hi), in arrays that reach one pair further on each side."""
        low = max(lo, self.lo)
        high = max(low, min(hi, self.hi))
        blanks, symbols = np.full((2, hi - lo + 2), math.inf)
        mine = slice(low - self.base, high - self.base)
        blanks[low - lo + 1 : high - lo + 1] = self.blanks[mine]
        symbols[low - lo + 1 : high - lo + 1] = self.symbols[mine]
        return _Front(base=lo - 1, lo=low, hi=high, blanks=blanks, symbols=symbols)

    def trim(self, most: float) -> None:
        """Leave out the pairs at both ends that cost more than ``most``."""
        window = slice(self.lo - self.base, self.hi - self.base)
        left = np.flatnonzero(np.minimum(self.blanks[window], self.symbols[window]) <= most)
        low, high = (int(left[0]), int(left[-1]) + 1) if len(left) else (self.hi - self.lo, self.hi - self.lo)
        for costs in (self.blanks[window], self.symbols[window]):
            costs[:low], costs[high:] = math.inf, math.inf
        self.lo, self.hi = self.lo + low, self.lo + high

    def least(self) -> float:
        """The cheapest state's cost."""
        window = slice(self.lo - self.base, self.hi - self.base)
        return float(min(self.blanks[window].min(), self.symbols[window].min()))


class _Lattice:
    def __init__(self, log_probs: NDArray[np.floating], symbols: NDArray[np.intp], *, blank: int) -> None:
        self._log_probs, self._symbols = log_probs, symbols
        self._frames, self._pairs = len(log_probs), len(symbols) + 1
        self._used, columns = np.unique(np.append(blank, symbols), return_inverse=True)
        self._blank = int(columns[0])
        self._columns = np.append(columns[1:], len(self._used))  # the last pair has no symbol: a cost that is infinite
        self._repeats = np.zeros(self._pairs)  # cost of reaching a symbol from the one before without a blank
        self._repeats[1:-1][symbols[1:] == symbols[:-1]] = math.inf
        self._small = self._frames * self._pairs <= SMALL
        # as many bytes for costs at the blocks' starts (16 a pair) as for the steps of one (1 a pair and frame)
        self._block = self._frames if self._small else round(math.sqrt(16 * self._frames))

    def some_cost(self) -> float:
        """What some path costs, cheaply found; infinite where none was found, or where it is not worth the search."""
        if self._small:
            return math.inf
        front = self._start()
        for first in range(0, self._frames, self._block):
            self._forward(front, first, beam=BEAM)
        return self._end(front)[0]

    def search(self, most: float) -> Path | None:
        """The best path, if it costs at most ``most``."""
        front = self._start()
        kept = []
        for first in range(0, self._frames, self._block):
            kept.append(front.part(front.lo, front.hi))
            steps = self._forward(front, first, most=most, told=self._small)
        cost, at_blank = self._end(front)
        if cost > most or math.isinf(cost):
            return None
        pair = self._pairs - 1 if at_blank else self._pairs - 2
        walk = _Walk(len(self._symbols), self._frames, pair=pair, blank=at_blank)
        for number in reversed(range(len(kept))):
            first = number * self._block
            if not self._small:
                front = kept[number].part(walk.pair - self._block, walk.pair + 1)
                steps = self._forward(front, first, most=most, target=walk.pair, told=True)
            walk.back(steps, first)
        return walk.path(self._symbols)

    def _start(self) -> _Front:
        """Before the first frame: a path begins with the first blank or the first symbol."""
        blanks, symbols = np.full((2, self._pairs + 2), math.inf)
        blanks[1] = 0.0
        return _Front(base=-1, lo=0, hi=1, blanks=blanks, symbols=symbols)

    def _end(self, front: _Front) -> tuple[float, bool]:
        """The cost of the best whole path, and whether it ends with a blank."""
        symbol, blank = front.symbols[self._pairs - 1], front.blanks[self._pairs]
        return float(min(symbol, blank)), bool(blank < symbol)

    def _costs(self, first: int, last: int) -> Costs:
        """[frames, symbols used + 1]; infinite in the last column and where a probability is 0 or no number."""
        found = self._log_probs[first:last, self._used].astype(np.float64)
        costs = np.full((len(found), len(self._used) + 1), math.inf)
        best = found.max(axis=1, keepdims=True)
        np.subtract(best, found, out=costs[:, :-1], where=np.isfinite(found) & np.isfinite(best))
        return costs

    def _forward(
        self,
        front: _Front,
        first: int,
        *,
        most: float = math.inf,
        beam: float = math.inf,
        target: int | None = None,
        told: bool = False,
    ) -> Steps:
        """Move ``front`` through the block that begins with frame ``first``.

        Paths are dropped that cost more than ``most``, or ``beam`` more than the cheapest, or cannot reach pair
        ``target`` in the block's last frame (left out: the last symbol in the very last). Steps only when ``told``.
        """
        last = min(first + self._block, self._frames)
        goal, final = (self._pairs - 2, self._frames - 1) if target is None else (target, last - 1)
        end = self._pairs if target is None else target + 1
        steps = Steps()
        for frame, costs in enumerate(self._costs(first, last), start=first):
            if frame % TRIM == 0 and front.lo < front.hi and min(most, beam) < math.inf:
                front.trim(min(most, front.least() + beam))
            if front.lo >= front.hi:
                break
            lo = max(front.lo, goal - (final - frame))
            step = self._step(front, costs, lo, min(front.hi + 1, end), told=told)
            if told:
                steps.append((lo, step))
        return steps

    def _step(self, front: _Front, costs: Costs, lo: int, hi: int, *, told: bool) -> NDArray[np.uint8]:
        """Move ``front`` one frame on, to the pairs [lo, hi)."""
        window = slice(lo - front.base, hi - front.base)
        blanks, symbols = front.blanks[window], front.symbols[window]
        before = front.symbols[lo - front.base - 1 : hi - front.base - 1].copy()  # symbols of the pairs before
        steps = (before < blanks).view(np.uint8) if told else _NO_STEPS
        stays = np.minimum(before, blanks)
        stays += costs[self._blank]
        before += self._repeats[lo:hi]
        if told:
            steps |= (blanks < symbols).view(np.uint8) << 1
        np.minimum(symbols, blanks, out=symbols)
        if told:
            steps |= (before < symbols).view(np.uint8) << 2
        np.minimum(symbols, before, out=symbols)
        symbols += costs[self._columns[lo:hi]]
        blanks[:] = stays
        front.symbols[lo - front.base - 1] = front.blanks[lo - front.base - 1] = math.inf
        front.lo, front.hi = lo, hi
        return steps


_NO_STEPS = np.empty(0, np.uint8)


class _Walk:
    """The best path, from its end."""

    def __init__(self, symbols: int, frames: int, *, pair: int, blank: bool) -> None:
        self.pair, self._blank = pair, blank
        self._first, self._last = np.zeros((2, symbols), np.intp)
        self._last[-1] = frames

    def back(self, steps: Steps, start: int) -> None:
        """Through one block, whose first frame is ``start``."""
        pair, blank = self.pair, self._blank
        for frame in range(start + len(steps) - 1, start - 1, -1):
            lo, row = steps[frame - start]
            step = int(row[pair - lo])
            if blank:
                if step & BLANK_FROM_SYMBOL:
                    pair, blank = pair - 1, False
                    self._last[pair] = frame
            elif step & SYMBOL_FROM_SYMBOL:
                self._first[pair] = frame
                pair -= 1
                self._last[pair] = frame
            elif step & SYMBOL_FROM_BLANK:
                self._first[pair] = frame
                blank = True
        self.pair, self._blank = pair, blank

    def path(self, symbols: NDArray[np.intp]) -> Path:
        """All of it."""
        return Path(ids=symbols, first=self._first, last=self._last)
