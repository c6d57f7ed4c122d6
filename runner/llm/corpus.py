"""A corpus: documents as tokens, written to the disk once and mapped into memory by every process that reads them.

Its folder holds `tokens.bin`, int32: the id of a token, or ~id where it is not learned; `places.bin`, UTF-8;
`ends.bin`, int64 [D, 3]: tokens, targets and bytes of places up to the end of each of D documents; and `corpus.json`.
It gets its name when all of that is on the disk: a folder of that name is a whole corpus.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from runner.checkpoints import sync
from runner.llm.document import Document
from runner.schema.errors import JobError

Kind = TypeVar("Kind", bound=np.generic)
VERSION = 1
BUFFER = 1 << 20  # bytes; with the usual 8 KiB a million documents take twice as long to write


class Corpus:
    """D documents of a folder that `build` wrote, or those of its ``rows``. Pickled, it is its folder and its rows."""

    def __init__(self, folder: Path, *, rows: NDArray[np.int64] | None = None) -> None:
        try:
            told = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise JobError(f"{str(folder)!r} holds no corpus: build it first", failure="NotFound") from None
        if told["version"] != VERSION:
            raise JobError(
                f"the corpus in {str(folder)!r} is of version {told['version']!r}, this program reads {VERSION}; "
                "remove that folder to build it anew",
                failure="DataInvalid",
            )
        self.folder = folder
        ends = np.fromfile(folder / "ends.bin", dtype=np.int64).reshape(-1, 3)
        starts = np.vstack([np.zeros((1, 3), dtype=np.int64), ends[:-1]])[: len(ends)]
        self._rows = rows
        self._starts, self._ends = (starts, ends) if rows is None else (starts[rows], ends[rows])
        self._tokens = _mapped(folder / "tokens.bin", np.int32)
        self._places = _mapped(folder / "places.bin", np.uint8)
        self.lengths: NDArray[np.int64] = self._ends[:, 0] - self._starts[:, 0]  # [D] tokens
        self.targets: NDArray[np.int64] = self._ends[:, 1] - self._starts[:, 1]  # [D] of them learned

    def __reduce__(self) -> tuple[object, ...]:
        return _opened, (self.folder, self._rows)

    def __len__(self) -> int:
        return len(self.lengths)

    def place(self, index: int) -> str:
        """Where a document comes from."""
        begin, end = self._starts[index, 2], self._ends[index, 2]
        return self._places[begin:end].tobytes().decode()

    def coded(self, index: int, start: int = 0, stop: int | None = None) -> NDArray[np.int32]:
        """Tokens ``start`` to ``stop`` of a document as on the disk: the id, or ~id where it is not learned."""
        begin, end = self._starts[index, 0], self._ends[index, 0]
        return self._tokens[begin + start : end if stop is None else min(begin + stop, end)]

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Corpus:
        """The same corpus with the documents of ``rows`` alone, in that order."""
        chosen = np.asarray(rows, dtype=np.int64)
        return Corpus(self.folder, rows=chosen if self._rows is None else self._rows[chosen])


def build(documents: Iterable[Document], folder: Path) -> Corpus:
    """Write ``documents`` as they come, in the memory of one; what stood in ``folder`` is replaced at the end."""
    writing = folder.with_name(f"{folder.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    with (
        (writing / "tokens.bin").open("wb", BUFFER) as tokens,
        (writing / "ends.bin").open("wb", BUFFER) as ends,
        (writing / "places.bin").open("wb", BUFFER) as places,
    ):
        _write(documents, tokens, ends, places)
    (writing / "corpus.json").write_text(json.dumps({"version": VERSION}), encoding="utf-8")
    for file in writing.iterdir():
        sync(file)
    shutil.rmtree(folder, ignore_errors=True)
    writing.rename(folder)
    sync(folder.parent)
    return Corpus(folder)


def hold_back(corpora: Sequence[Corpus], *, share: float, seed: int) -> tuple[list[Corpus], list[Corpus]]:
    """The corpora without a random ``share`` of their documents, and that share: of all together, at least one.

    Raises JobError (DataInvalid) where nothing would be left to learn from.
    """
    sizes = [len(corpus) for corpus in corpora]
    total = sum(sizes)
    count = max(1, round(share * total))
    if count >= total:
        raise JobError(
            f"validation_share {share!r} of {total} documents leaves nothing to learn from: give more documents, or 0",
            failure="DataInvalid",
        )
    back = np.zeros(total, dtype=bool)
    back[np.random.default_rng(seed).permutation(total)[:count]] = True
    parts = np.split(back, np.cumsum(sizes)[:-1])
    pairs = list(zip(corpora, parts, strict=True))
    return [one.take(np.flatnonzero(~part)) for one, part in pairs], [
        one.take(np.flatnonzero(part)) for one, part in pairs
    ]


def _write(documents: Iterable[Document], tokens: BinaryIO, ends: BinaryIO, places: BinaryIO) -> None:
    end = np.zeros(3, dtype=np.int64)
    for document in documents:
        learned = document.learned
        assert len(document.ids) == len(learned), f"{document.place}: {len(document.ids)} ids, {len(learned)} learned"
        assert not learned[:1].any(), f"{document.place}: nothing predicts its first token"
        coded = np.where(learned, document.ids, ~document.ids).astype(np.int32, copy=False).tobytes()
        place = document.place.encode()
        tokens.write(coded)
        places.write(place)
        end += np.array([len(learned), np.count_nonzero(learned), len(place)])
        ends.write(end.tobytes())


def _mapped(file: Path, kind: type[Kind]) -> NDArray[Kind]:
    return np.memmap(file, dtype=kind, mode="r") if file.stat().st_size else np.zeros(0, dtype=kind)


def _opened(folder: Path, rows: NDArray[np.int64] | None) -> Corpus:
    return Corpus(folder, rows=rows)
