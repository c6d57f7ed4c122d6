"""The steps of a run over corpora on the disk, packed or padded: planned from lengths alone, read when they are due.

A row is what is filled with documents, or without packing one document. The rows of all epochs follow each other;
each step takes the next of them, shares them evenly, and every process reads its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.llm.corpus import Corpus
from runner.llm.data import mixture
from runner.llm.packing import balance, batch, fill, pieces
from runner.llm.packing.step import Batch, Step
from runner.schema.errors import JobError

MOST_DOCUMENTS = 32768  # of a forward pass
Row = list[int]  # pieces, by number


@dataclass(kw_only=True)
class Loader:
    """`Steps` of one process. Each takes ``accumulate`` forward passes of ``rows`` rows, all processes together.

    Exactly one of ``epochs`` and ``max_steps`` is given; an epoch takes the documents of a corpus as often as its
    weight says. Every process makes the same plan, and teams of other sizes the same forward passes. Raises JobError:
    DataInvalid where there is nothing to learn, Infeasible where processes cannot share alike.
    """

    corpora: Sequence[Corpus]
    weights: Sequence[float]
    packed: bool
    seq_len: int  # tokens of a row
    rows: int
    accumulate: int
    seed: int
    pad_id: int
    long: pieces.Long = "truncate"
    look_ahead: int = 4096  # documents
    most_documents: int = MOST_DOCUMENTS
    epochs: float | None = None
    max_steps: int | None = None
    rank: int = 0
    size: int = 1
    hidden: int = 1024  # width of the model, which says what attention costs beside the rest
    position_axes: int = 1  # see ``form``

    def __post_init__(self) -> None:
        assert (self.epochs is None) != (self.max_steps is None), "give epochs or max_steps"
        if self.accumulate % self.size:
            raise JobError(
                f"batch.accumulate {self.accumulate!r} is no multiple of the {self.size} processes that share it: set "
                f"it to {-(-self.accumulate // self.size) * self.size}",
                failure="Infeasible",
            )
        self._pieces = pieces.cut(self.corpora, capacity=self.seq_len, long=self.long)
        self._lengths = self._pieces.stop - self._pieces.start
        self._counts: list[int] = []  # rows of the first epochs
        self._per_step = self.rows * self.accumulate
        first = self._count(0)
        if not first:
            raise JobError(self._nothing(), failure="DataInvalid")
        self.per_epoch: float | None = first / min(1.0, self.epochs or 1.0) / self._per_step
        self.total: int = self.max_steps or math.ceil(sum(map(self._count, self._epochs())) / self._per_step)

    @property
    def cut(self) -> pieces.Cut:
        """What ``long`` does to the documents, each taken once."""
        return self._pieces.cut

    def begin(self, number: int) -> Iterator[Step]:
        """From step ``number`` to the last; planned as it goes, so that a step waits for one window at most."""
        ahead = self._rows_from(number * self._per_step)
        for one in range(number, self.total):
            yield self._step(one, list(itertools.islice(ahead, self._per_step)))

    def _rows_from(self, row: int) -> Iterator[Row]:
        for epoch in self._epochs():
            if row and row >= self._count(epoch):
                row -= self._count(epoch)
                continue
            yield from itertools.islice(self._rows_of(epoch), row, None)
            row = 0

    def _epochs(self) -> Iterator[int]:
        return itertools.count() if self.epochs is None else iter(range(math.ceil(self.epochs)))

    def _count(self, epoch: int) -> int:
        while len(self._counts) <= epoch:
            self._counts.append(sum(1 for _ in self._rows_of(len(self._counts))))
        return self._counts[epoch]

    def _rows_of(self, epoch: int) -> Iterator[Row]:
        order = mixture.epoch([len(one) for one in self.corpora], self.weights, seed=self.seed, epoch=epoch)
        if self.epochs is not None and self.epochs < epoch + 1:
            order = order[: max(1, round((self.epochs - epoch) * len(order)))]
        chosen = self._pieces.of(order)
        if not self.packed:
            yield from ([one] for one in chosen.tolist())
            return
        lengths = self._lengths[chosen].tolist()
        most = max(1, self.most_documents // self.rows)
        for row in fill.rows(lengths, capacity=self.seq_len, look_ahead=self.look_ahead, most_documents=most):
            yield chosen[row].tolist()

    def _step(self, number: int, rows: list[Row]) -> Step:
        lengths = [self._lengths[row] for row in rows]
        passes = self._passes(lengths)
        costs = [self._cost([lengths[row] for row in one]) for one in passes]
        mine = balance.shares(costs, size=self.size)[self.rank]
        every = np.concatenate(lengths)
        return Step(
            number=number,
            batches=tuple(self._batch([] if one is None else [rows[row] for row in passes[one]]) for one in mine),
            targets=int(self._pieces.targets[np.concatenate(rows)].sum()),
            tokens=int(every.sum()),
            computed=int(every.sum()) if self.packed else sum(_padded([lengths[row] for row in one]) for one in passes),
            documents=len(every),
        )

    def _passes(self, lengths: list[NDArray[np.int64]]) -> list[list[int]]:
        """Rows of each forward pass: of equal cost, or without packing of about the same length."""
        count = -(-len(lengths) // self.rows)
        if self.packed:
            return balance.passes([self._cost([one]) for one in lengths], count=count, most=self.rows)
        order = sorted(range(len(lengths)), key=lambda row: -int(lengths[row][0]))
        return [order[first : first + self.rows] for first in range(0, len(order), self.rows)]

    def _cost(self, rows: list[NDArray[np.int64]]) -> int:
        if not self.packed:
            rows = [np.full(len(rows), batch.width_of([int(row[0]) for row in rows]))]
        return sum(balance.cost(row, hidden=self.hidden) for row in rows)

    def _batch(self, rows: list[Row]) -> Batch:
        of = self._pieces
        found = [
            self.corpora[of.corpus[one]].coded(of.document[one], of.start[one], of.stop[one])
            for row in rows
            for one in row
        ] or [batch.blank(pad_id=self.pad_id)]
        if not self.packed:
            return batch.padded(found, pad_id=self.pad_id)
        return batch.packed(found, position_axes=self.position_axes)

    def _nothing(self) -> str:
        cut = self._pieces.cut
        return (
            f"there is nothing to learn: of {cut.documents} documents {cut.longer} are longer than batch.seq_len "
            f"{self.seq_len!r} (packing.long: {self.long}), and {cut.unlearned} hold no token that is learned; "
            "see them with `runner explain data`, and set a longer seq_len or packing.long: split"
        )


def _padded(rows: list[NDArray[np.int64]]) -> int:
    return len(rows) * batch.width_of([int(row[0]) for row in rows])
