"""The steps of a run over documents that come while it trains, for corpora whose tokens do not fit on the disk.

Documents come in blocks, and each block is filled into rows by itself, while the next one is made in a thread. Where
each block began is noted in a file: a run that goes on begins with the block that it was in. Every process makes all
blocks and reads its share of them, so that all know the counts of a step without asking each other.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runner.llm.data import mixture
from runner.llm.data.portions import portions
from runner.llm.data.sample import Sample
from runner.llm.document import Document
from runner.llm.packing import batch, fill, pieces
from runner.llm.packing.layout import Layout, Piece, Row
from runner.llm.packing.step import Batch, Step
from runner.schema.errors import JobError

State = Any  # JSON types; None is the beginning
Block = tuple[Sequence[Document], State]  # and from where to go on after them
Blocks = Callable[[State], Iterator[Block]]
BARREN = 10  # blocks in a row without anything to learn, after which there is no hope


def encoded(
    open_stream: Callable[[State], mixture.Stream[Sample]],
    *,
    encode: Callable[[Sequence[Sample]], Sequence[Document | tuple[str, str]]],
    skip: Callable[[str, str], None],
    size: int,
) -> Blocks:
    """Blocks of ``size`` samples of a stream; ``skip`` is told the place and reason of those that are no document."""

    def blocks(state: State) -> Iterator[Block]:
        stream = open_stream(state)
        while True:
            samples = (sample for _, _, sample in itertools.islice(stream, size))
            found: list[Document] = []
            for one in itertools.chain.from_iterable(map(encode, portions(samples))):
                if isinstance(one, Document):
                    found.append(one)
                else:
                    skip(*one)
            yield found, stream.state

    return blocks


@dataclass(kw_only=True)
class StreamSteps(Layout):
    """`Steps` of one process over ``blocks``, which give the same documents again from each state that came with them.

    Raises JobError (DataInvalid) where the blocks end before ``max_steps``, or hold nothing to learn.
    """

    blocks: Blocks
    journal: Path  # where each block began; the first process writes it
    max_steps: int
    long: pieces.Long = "truncate"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.total = self.max_steps
        self.per_epoch: float | None = None
        self.cut = pieces.Cut(documents=0, tokens=0, targets=0, longer=0, tokens_lost=0, targets_lost=0, unlearned=0)

    def begin(self, number: int) -> Iterator[Step]:
        """From step ``number`` to the last, beginning with the block that its first row is in."""
        wanted = number * self.per_step
        first, state = self._noted(wanted)
        ahead = itertools.islice(self._rows_from(first, state), wanted - first, None)
        for one in range(number, self.total):
            rows = list(itertools.islice(ahead, self.per_step))
            if len(rows) < self.per_step:
                raise JobError(
                    f"the stream ends in step {one + 1} of {self.total}, after {self.cut.documents} documents: give "
                    "more, or a smaller train.max_steps",
                    failure="DataInvalid",
                )
            yield self.step(one, rows)

    def trial(self) -> Batch:
        """A batch for probes, the same in every process: of the first block the rows with the most documents."""
        counted = self.cut
        for documents, _ in itertools.islice(self.blocks(None), BARREN):
            if rows := self._filled(documents):
                self.cut = counted
                return self.most_mixed(rows)
        raise _nothing()

    def _rows_from(self, row: int, state: State) -> Iterator[Row]:
        barren = 0
        for documents, after in _ahead(self.blocks(state)):
            filled = self._filled(documents)
            barren = 0 if filled else barren + 1
            if barren == BARREN:
                raise _nothing()
            yield from filled
            row += len(filled)
            self._note(row, after)

    def _filled(self, documents: Sequence[Document]) -> list[Row]:
        found = [piece for one in documents for piece in self._cut(one)]
        if not self.packed:
            return [[piece] for piece in found]
        lengths = [piece.length for piece in found]
        rows = fill.rows(lengths, capacity=self.seq_len, look_ahead=len(found) + 1, most_documents=self.most)
        return [[found[one] for one in row] for row in rows]

    def _cut(self, document: Document) -> list[Piece]:
        """What is learned of a document, counted."""
        coded = np.where(document.learned, document.ids, ~document.ids).astype(np.int32, copy=False)
        spans = pieces.spans(len(coded), capacity=self.longest, long=self.long)
        made = [_piece(coded[start:stop]) for start, stop in spans]
        longer, targets = len(coded) > self.longest, int(document.learned.sum())
        lost = longer and self.long != "split"
        counts = {
            "documents": 1,
            "tokens": len(coded),
            "targets": targets,
            "longer": int(longer),
            "tokens_lost": len(coded) - sum(stop for _, stop in spans) if lost else 0,
            "targets_lost": targets - sum(piece.targets for piece in made),
            "unlearned": sum(piece.targets == 0 for piece in made),
        }
        self.cut = pieces.Cut(**{name: counts[name] + count for name, count in asdict(self.cut).items()})
        return [piece for piece in made if piece.targets]

    def _noted(self, wanted: int) -> tuple[int, State]:
        """The last block known to begin at row ``wanted`` or before: the number of its first row, and its state."""
        found: tuple[int, State] = (0, None)
        self._last = 0
        if not self.journal.exists():
            return found
        whole, newline, _ = self.journal.read_bytes().rpartition(b"\n")  # a kill may have left half a line
        if self.rank == 0:
            os.truncate(self.journal, len(whole) + len(newline))
        for line in whole.splitlines():
            row, state = json.loads(line)
            self._last = row
            found = (row, state) if row <= wanted else found
        return found

    def _note(self, row: int, state: State) -> None:
        if self.rank or row <= self._last:
            return
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps([row, state]) + "\n")
        self._last = row


def _nothing() -> JobError:
    return JobError(
        f"there is nothing to learn in {BARREN} blocks of documents one after the other: see them with `runner explain "
        "data`",
        failure="DataInvalid",
    )


def _piece(coded: batch.Coded) -> Piece:
    return Piece(len(coded), int(np.count_nonzero(coded[1:] >= 0)), lambda: coded)


def _ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same blocks, each made while the one before is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="documents") as worker:
        coming = worker.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = worker.submit(next, blocks, None)
            yield block
