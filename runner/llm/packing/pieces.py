"""Pieces: what is learned of documents that may be longer than a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runner.llm.corpus import Corpus

Long = Literal["split", "truncate", "drop"]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What the length of a row did to documents: counts of one pass over all; of a stream, of those that it read."""

    documents: int = 0
    tokens: int = 0
    targets: int = 0
    longer: int = 0  # documents that were
    tokens_lost: int = 0  # of what was truncated or dropped
    targets_lost: int = 0
    unlearned: int = 0  # pieces left out since nothing of them would be learned
    left_out: int = 0  # documents of which nothing is learned

    def __add__(self, other: Cut) -> Cut:
        return Cut(**{name: count + getattr(other, name) for name, count in asdict(self).items()})

    def told(self, *, longest: int, long: Long) -> str | None:
        """In words, where a document was longer than ``longest`` tokens."""
        if not self.longer:
            return None
        return (
            f"{self.longer:,} of {self.documents:,} documents are longer than {longest:,} tokens: "
            f"{self.targets_lost:,} of {self.targets:,} targets lost, {self.left_out:,} documents left out "
            f"(packing.long: {long})"
        )

    def nothing(self, *, longest: int, long: Long, first: str) -> str:
        """Why nothing is left of them, and what to do. ``first``: more about one of them."""
        remedy = ", and set a longer seq_len or packing.long: split" if self.longer else ""
        return (
            f"of {self.documents} documents {self.longer} are longer than {longest!r} tokens (batch.seq_len, or what "
            f"the model has positions for; packing.long: {long}), and {self.unlearned} hold no token that is "
            f"learned{first}; see them with `runner explain data`{remedy}"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Pieces:
    """P pieces of D documents, in the documents' order. Those of document d are ``first[d]`` to ``first[d + 1]``."""

    corpus: NDArray[np.int64]  # [P]
    document: NDArray[np.int64]  # [P] within its corpus
    start: NDArray[np.int64]  # [P]
    stop: NDArray[np.int64]  # [P]
    targets: NDArray[np.int64]  # [P] never of the first token, which nothing predicts
    first: NDArray[np.int64]  # [D + 1]
    offset: NDArray[np.int64]  # [corpora + 1] the first of the D documents of each corpus
    lost: list[tuple[int, int]]  # corpus and row of each document that was truncated before its first learned token
    cut: Cut

    def of(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pieces of documents [N, 2] (corpus, row), one document after the other."""
        documents = self.offset[order[:, 0]] + order[:, 1]
        counts = self.first[documents + 1] - self.first[documents]
        begins = np.cumsum(counts) - counts
        return np.repeat(self.first[documents] - begins, counts) + np.arange(counts.sum())


def truncated(longest: int) -> str:
    """Why a document is left out of which nothing is learned once it is truncated."""
    return (
        f"nothing to learn: packing.long: truncate ends it after {longest:,} tokens, before the first that is learned; "
        "set a longer batch.seq_len, or packing.long: split"
    )


def spans(length: int, *, capacity: int, long: Long) -> list[tuple[int, int]]:
    """Start and stop of the pieces of one document; ``split`` repeats a token at each cut, so that no target is lost.

    A piece's first token is predicted by nothing: it is the last of the piece before, where it was learned.
    """
    if length <= capacity:
        return [(0, length)]
    if long == "drop":
        return []
    if long == "truncate":
        return [(0, capacity)]
    return [(start, min(start + capacity, length)) for start in range(0, length - 1, capacity - 1)]


def cut(corpora: Sequence[Corpus], *, capacity: int, long: Long) -> Pieces:
    """Pieces of at most ``capacity`` tokens with something to learn. Reads documents only where that is not known."""
    sizes = np.array([len(one) for one in corpora], dtype=np.int64)
    offset = np.concatenate([[0], np.cumsum(sizes)])
    lengths = np.concatenate([one.lengths for one in corpora])
    whole = np.concatenate([one.targets for one in corpora])
    counts = np.ones(len(lengths), dtype=np.int64)
    longer = lengths > capacity
    counts[longer] = 0 if long == "drop" else 1
    if long == "split":
        counts[longer] = -(-(lengths[longer] - 1) // (capacity - 1))  # as `spans` says, for all at once
    homes = np.repeat(np.arange(len(sizes)), sizes)  # the corpus of each document
    owner = np.repeat(np.arange(len(lengths)), counts)
    before = np.cumsum(counts) - counts
    start = (np.arange(len(owner)) - before[owner]) * (capacity - 1)
    stop = np.minimum(start + capacity, lengths[owner])
    corpus = homes[owner]
    document = owner - offset[corpus]
    targets = np.where(stop - start == lengths[owner], whole[owner], stop - start - 1)
    unknown = np.flatnonzero((stop - start < lengths[owner]) & (whole[owner] < lengths[owner] - 1))
    for one in unknown.tolist():
        targets[one] = _targets(corpora[corpus[one]], document[one], start[one], stop[one])
    kept = targets > 0
    learned = np.bincount(owner[kept], minlength=len(lengths))  # pieces of each document
    lost = np.flatnonzero(longer & (learned == 0)) if long == "truncate" else np.zeros(0, dtype=np.int64)
    told = Cut(
        documents=len(lengths),
        tokens=int(lengths.sum()),
        targets=int(whole.sum()),
        longer=int(longer.sum()),
        tokens_lost=0 if long == "split" else int((lengths[longer] - (0 if long == "drop" else capacity)).sum()),
        targets_lost=int(whole.sum() - targets.sum()),
        unlearned=int((~kept).sum()),
        left_out=int((learned == 0).sum()),
    )
    first = np.concatenate([[0], np.cumsum(learned)])
    return Pieces(
        corpus=corpus[kept],
        document=document[kept],
        start=start[kept],
        stop=stop[kept],
        targets=targets[kept],
        first=first,
        offset=offset,
        lost=list(zip(homes[lost].tolist(), (lost - offset[homes[lost]]).tolist(), strict=True)),
        cut=told,
    )


def _targets(corpus: Corpus, document: int, start: int, stop: int) -> int:
    return int(np.count_nonzero(corpus.coded(document, start + 1, stop) >= 0))
