"""The steps of a run over documents that come while it trains, for corpora whose tokens do not fit on the disk.

Documents come in blocks, and each block is filled into rows by itself, while the next one is made in a thread. Where
each block began is noted in a file, with what was cut and left out before it: a run that goes on begins with the block
that it was in. Every process makes all blocks and reads its share of them, so that all know the counts of a step
without asking each other.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from runner.llm.data import mixture
from runner.llm.data.portions import portions
from runner.llm.data.sample import Sample
from runner.llm.data.skipped import Skipped
from runner.llm.document import Document
from runner.llm.packing import batch, fill, pieces
from runner.llm.packing.layout import Layout, Piece, Row
from runner.llm.packing.step import Batch, Step
from runner.schema.errors import JobError

State = Any  # JSON types; None is the beginning
LeftOut = dict[str, Any]  # as ``Skipped.to_json``
Block = tuple[Sequence[Document], State, LeftOut]  # and from where to go on after them, and what is missing
Blocks = Callable[[State], Iterator[Block]]
BARREN = 10  # blocks in a row without anything to learn, after which there is no hope


def encoded(
    open_stream: Callable[[State], mixture.Stream[Sample]],
    *,
    encode: Callable[[Sequence[Sample]], Sequence[Document | tuple[str, str]]],
    skipped: Skipped,
    size: int,
) -> Blocks:
    """Blocks of ``size`` samples of a stream. ``skipped`` is that of the stream's rows, and of nothing else: each block
    takes along what it holds, since the next one is read before a block is used."""

    def blocks(state: State) -> Iterator[Block]:
        stream = open_stream(state)
        while True:
            samples = (sample for _, _, sample in itertools.islice(stream, size))
            found: list[Document] = []
            for one in itertools.chain.from_iterable(map(encode, portions(samples))):
                if isinstance(one, Document):
                    found.append(one)
                else:
                    skipped.add(*one)
            yield found, stream.state, skipped.taken()

    return blocks


@dataclass(kw_only=True)
class StreamSteps(Layout):
    """`Steps` of one process over ``blocks``, which give the same documents again from each state that came with them.

    Raises JobError (DataInvalid) where the blocks end before ``max_steps``, or hold nothing to learn.
    """

    blocks: Blocks
    journal: Path  # of each block where it begins, and what was cut and left out before; the first process writes it
    max_steps: int
    long: pieces.Long = "truncate"
    skipped: Skipped = field(default_factory=lambda: Skipped("skip"))  # hears of every sample that is left out

    def __post_init__(self) -> None:
        super().__post_init__()
        self.total = self.max_steps
        self.cut = pieces.Cut()

    def begin(self, number: int) -> Iterator[Step]:
        """From step ``number`` to the last, beginning with the block that its first row is in."""
        wanted = number * self.per_step
        first, state = self._noted(wanted)
        ahead = self._rows_from(first, state)
        for _ in itertools.islice(ahead, wanted - first):
            pass  # at once: what the last block lost is counted where no step is left, too
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
        counted, skipped = pieces.Cut(), Skipped("skip")
        for documents, _, left_out in itertools.islice(self.blocks(None), BARREN):
            rows, cut, lost = self._filled(documents)
            if rows:
                return self.most_mixed(rows)
            counted += cut
            skipped.merge(self._left_out(left_out, lost))
        raise self._nothing(counted, skipped)

    def _rows_from(self, row: int, state: State) -> Iterator[Row]:
        barren, counted = 0, pieces.Cut()  # blocks since the last with rows, and what was cut in them
        fresh = Skipped("skip")  # since the last note: a block without rows is not noted
        for documents, after, left_out in _ahead(self.blocks(state)):
            filled, cut, lost = self._filled(documents)
            self.cut += cut
            fresh.merge(self.skipped.merge(self._left_out(left_out, lost)))
            barren, counted = (0, pieces.Cut()) if filled else (barren + 1, counted + cut)
            if barren == BARREN:
                raise self._nothing(counted, self.skipped)
            yield from filled
            row += len(filled)
            if filled:
                self._note(row, after, fresh.taken())

    def _left_out(self, left_out: LeftOut, lost: Sequence[str]) -> LeftOut:
        """All of a block, with those whose truncation left nothing."""
        block = Skipped(self.skipped.policy)
        block.merge(left_out)
        for place in lost:
            block.add(place, pieces.truncated(self.longest))
        return block.to_json()

    def _filled(self, documents: Sequence[Document]) -> tuple[list[Row], pieces.Cut, list[str]]:
        """Rows of a block, what was cut to make them, and places of documents whose truncation left nothing."""
        found: list[Piece] = []
        lost: list[str] = []
        counted = pieces.Cut()
        for one in documents:
            made, cut = self._cut(one)
            found += made
            counted += cut
            if self.long == "truncate" and cut.longer and cut.left_out:
                lost.append(one.place)
        return self._rows(found), counted, lost

    def _rows(self, found: Sequence[Piece]) -> list[Row]:
        if not self.packed:
            return [[piece] for piece in found]
        lengths = [piece.length for piece in found]
        rows = fill.rows(lengths, capacity=self.seq_len, look_ahead=len(found) + 1, most_documents=self.most)
        return [[found[one] for one in row] for row in rows]

    def _cut(self, document: Document) -> tuple[list[Piece], pieces.Cut]:
        """What is learned of a document, and what is not."""
        coded = np.where(document.learned, document.ids, ~document.ids).astype(np.int32, copy=False)
        spans = pieces.spans(len(coded), capacity=self.longest, long=self.long)
        made = [_piece(coded[start:stop]) for start, stop in spans]
        longer, targets = len(coded) > self.longest, int(document.learned.sum())
        lost = longer and self.long != "split"
        kept = [piece for piece in made if piece.targets]
        return kept, pieces.Cut(
            documents=1,
            tokens=len(coded),
            targets=targets,
            longer=int(longer),
            tokens_lost=len(coded) - sum(stop for _, stop in spans) if lost else 0,
            targets_lost=targets - sum(piece.targets for piece in made),
            unlearned=len(made) - len(kept),
            left_out=int(not kept),
        )

    def _noted(self, wanted: int) -> tuple[int, State]:
        """The last block known to begin at row ``wanted`` or before: the number of its first row, and its state.

        Counts what was cut and left out before it.
        """
        found: tuple[int, State] = (0, None)
        self._last, self.cut = 0, pieces.Cut()
        if not self.journal.exists():
            return found
        whole, newline, _ = self.journal.read_bytes().rpartition(b"\n")  # a kill may have left half a line
        if self.rank == 0:
            os.truncate(self.journal, len(whole) + len(newline))
        for line in whole.splitlines():
            self._last, state, cut, left_out = json.loads(line)
            if self._last <= wanted:
                found, self.cut = (self._last, state), pieces.Cut(**cut)
                self.skipped.merge(left_out)
        return found

    def _note(self, row: int, state: State, left_out: LeftOut) -> None:
        if self.rank or row <= self._last:
            return
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps([row, state, asdict(self.cut), left_out]) + "\n")
        self._last = row

    def _nothing(self, cut: pieces.Cut, skipped: Skipped) -> JobError:
        first = "".join(f"; the first left out: {place}: {reason}" for place, reason in skipped.listed[:1])
        return JobError(
            f"there is nothing to learn in {BARREN} blocks of documents one after the other: "
            + cut.nothing(longest=self.longest, long=self.long, first=first),
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
