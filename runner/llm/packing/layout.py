"""How rows become a step: its forward passes, their share of each process, and its counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from runner.llm.packing import balance, batch
from runner.llm.packing.step import Batch, Step
from runner.schema.errors import JobError

MOST_DOCUMENTS = 32768  # of a forward pass


class Piece(NamedTuple):  # a tuple, since a step may hold 100,000
    """A document, or what is learned of it at once."""

    length: int
    targets: int
    read: Callable[[], batch.Coded]


Row = list[Piece]  # without packing one of them


@dataclass(kw_only=True)
class Layout:
    """A step takes ``accumulate`` forward passes of ``rows`` rows, all processes together.

    Teams of every size compute the same forward passes. Raises JobError (Infeasible) where processes cannot share them
    alike.
    """

    packed: bool
    seq_len: int  # tokens of a row
    rows: int
    accumulate: int
    pad_id: int
    most_documents: int = MOST_DOCUMENTS
    rank: int = 0
    size: int = 1
    hidden: int = 1024  # width of the model, which says what attention costs beside the rest
    position_axes: int = 1  # see ``form``
    positions: int | None = None  # of the model: no document is longer, however many a row holds; None: without end

    def __post_init__(self) -> None:
        if self.accumulate % self.size:
            raise JobError(
                f"batch.accumulate {self.accumulate!r} is no multiple of the {self.size} processes that share it: set "
                f"it to {-(-self.accumulate // self.size) * self.size}",
                failure="Infeasible",
            )

    @property
    def longest(self) -> int:
        """Tokens of the longest document that is taken whole."""
        return min(self.seq_len, self.positions or self.seq_len)

    @property
    def per_step(self) -> int:
        """Rows of a step."""
        return self.rows * self.accumulate

    @property
    def most(self) -> int:
        """Documents of a row."""
        return max(1, self.most_documents // self.rows)

    def step(self, number: int, rows: Sequence[Row]) -> Step:
        """The share of this process in the step of ``rows``; of their pieces it reads its own."""
        passes = self._passes(rows)
        mine = balance.shares([self._cost(one) for one in passes], size=self.size)[self.rank]
        every = [piece for row in rows for piece in row]
        tokens = sum(piece.length for piece in every)
        return Step(
            number=number,
            batches=tuple(self._batch([] if one is None else passes[one]) for one in mine),
            targets=sum(piece.targets for piece in every),
            tokens=tokens,
            computed=tokens if self.packed else sum(len(one) * _width(one) for one in passes),
            documents=len(every),
        )

    def most_mixed(self, rows: Iterable[Row]) -> Batch:
        """A batch of the rows with the most documents: it shows best whether they see each other."""
        return self._batch(sorted(rows, key=lambda row: -len(row))[: self.rows])

    def _passes(self, rows: Sequence[Row]) -> list[list[Row]]:
        """The rows of each forward pass: of equal cost, or without packing of about the same length."""
        if not self.packed:
            order = sorted(rows, key=lambda row: -row[0].length)
            return [order[first : first + self.rows] for first in range(0, len(order), self.rows)]
        count = -(-len(rows) // self.rows)
        chosen = balance.passes([self._cost([row]) for row in rows], count=count, most=self.rows)
        return [[rows[row] for row in one] for one in chosen]

    def _cost(self, rows: Sequence[Row]) -> int:
        lengths = [piece.length for row in rows for piece in row] if self.packed else [_width(rows)] * len(rows)
        return balance.cost(np.array(lengths), hidden=self.hidden)

    def _batch(self, rows: Sequence[Row]) -> Batch:
        found = [piece.read() for row in rows for piece in row] or [batch.blank(pad_id=self.pad_id)]
        if not self.packed:
            return batch.padded(found, pad_id=self.pad_id)
        return batch.packed(found, position_axes=self.position_axes)


def _width(rows: Sequence[Row]) -> int:
    return batch.width_of([row[0].length for row in rows])
