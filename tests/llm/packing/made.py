"""Corpora for tests: every token of every document is another number, so that batches tell what became of each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runner.llm import corpus
from runner.llm.corpus import Corpus
from runner.llm.document import Document

Token = tuple[int, bool]  # id, and whether it is learned


def documents(lengths: Sequence[int], *, first: int = 1, learned: float = 0.5, seed: int = 0) -> list[Document]:
    """Documents of these lengths, the last token of each learned, of the others but the first a share."""
    draw, made = np.random.default_rng(seed), []
    for number, length in enumerate(lengths):
        taught = draw.random(length) < learned
        taught[-1], taught[0] = True, False
        made.append(
            Document(place=f"a.jsonl:{number}", ids=np.arange(first, first + length, dtype=np.int32), learned=taught)
        )
        first += length
    return made


def stored(folder: Path, lengths: Sequence[int], **options: Any) -> corpus.Corpus:
    """A corpus of them on the disk."""
    return corpus.build(documents(lengths, **options), folder)


def restored(made: Corpus, index: int) -> Document:
    """As it was written."""
    coded = made.coded(index)
    return Document(place=made.place(index), ids=np.where(coded < 0, ~coded, coded), learned=coded >= 0)


def tokens(one: Document) -> list[Token]:
    """What is to be found of a document in batches."""
    return list(zip(one.ids.tolist(), one.learned.tolist(), strict=True))


def found(batch: dict[str, Any]) -> list[list[Token]]:
    """The documents of a batch, packed or padded, as tokens."""
    ids, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
    assert ((labels == ids) | (labels == -100)).all()
    if "attention_mask" in batch:
        widths = batch["attention_mask"].sum(1).tolist()
        rows = [(ids[row, :width], labels[row, :width]) for row, width in enumerate(widths)]
        assert all((labels[row, width:] == -100).all() for row, width in enumerate(widths))
    else:
        edges = batch["cu_seq_lens_q"].tolist()
        assert edges[0] == 0 and edges[-1] == ids.shape[1]
        rows = [(ids[0, a:b], labels[0, a:b]) for a, b in itertools.pairwise(edges)]
    return [list(zip(i.tolist(), (x != -100).tolist(), strict=True)) for i, x in rows]
