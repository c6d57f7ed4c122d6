"""ARPA files: n-gram models as text, plain or gzip.

    \\data\\
    ngram 1=4
    ngram 2=3

    \\1-grams:
    -0.9    <unk>
    -99     <s>    -0.3          log10 of the probability, the words, log10 of the backoff weight
    ...
    \\end\\

Read line by line: 164 MB (3.3 million n-grams) took 15 CPU-s and 206 MB of memory on a busy server core
(`python -m tests.bench.beam --arpa 160`).
"""

from __future__ import annotations

import gzip
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from runner.asr.language.ngram import NEVER, Grams, Ngram
from runner.schema.errors import JobError

GZIP = b"\x1f\x8b"
LONGEST = 1 << 16  # bytes of one line
DIGITS = 18  # of a count
MOST = 2**31  # words of a model: a place and a word must fit into 63 bits


def read(path: Path) -> Ngram:
    """The model of an ARPA file. Raises JobError (DataInvalid) that names the line."""
    try:
        with _open(path) as file:
            return _Reader(path.name, file).model()
    except (OSError, EOFError, zlib.error) as error:
        raise JobError(f"{path.name} cannot be read: {error}", failure="DataInvalid") from error


def write(path: Path, words: Sequence[str], orders: Sequence[Grams]) -> None:
    """Write the n-grams of every order, the lowest first."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\\data\\\n")
        file.writelines(f"ngram {order}={len(grams.ids)}\n" for order, grams in enumerate(orders, start=1))
        for order, grams in enumerate(orders, start=1):
            file.write(f"\n\\{order}-grams:\n")
            rows = zip(grams.ids.tolist(), grams.probability.tolist(), grams.backoff.tolist(), strict=True)
            for ids, probability, backoff in rows:
                text = " ".join([words[id_] for id_ in ids])
                file.write(f"{probability:.7g}\t{text}" + (f"\t{backoff:.7g}\n" if order < len(orders) else "\n"))
        file.write("\n\\end\\\n")


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(2) == GZIP
    return cast(BinaryIO, gzip.open(path, "rb")) if zipped else path.open("rb")


class _Reader:
    """Goes through the file once."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self._name, self._file = name, file
        self._line = 0
        self._lines = self._every_line()
        self._words: dict[bytes, int] = {}

    def model(self) -> Ngram:
        counts = self._header()
        unigrams = self._unigrams(counts[0])
        try:
            words = [word.decode("utf-8") for word in self._words]
        except UnicodeDecodeError as error:
            raise self._invalid(f"the words are not UTF-8: {error}") from None
        model = Ngram(words, unigrams)
        for order, count in enumerate(counts[1:], start=2):
            began = self._line
            grams = self._grams(order, count)
            bad = model.add(grams)
            if bad is not None:
                text = " ".join(words[id_] for id_ in grams.ids[bad].tolist())
                raise JobError(
                    f"{self._name}: the {order}-gram {text!r} below line {began} is there twice, or the words that it "
                    "begins with are no n-gram of the file",
                    failure="DataInvalid",
                )
        self._section("\\end\\")
        return model

    def _every_line(self) -> Iterator[bytes]:
        while line := self._file.readline(LONGEST):
            self._line += 1
            if not line.endswith(b"\n") and len(line) == LONGEST:
                self._fail(f"a line of more than {LONGEST} bytes")
            if line := line.strip():
                yield line

    def _header(self) -> list[int]:
        first = next(self._lines, b"")
        if first.startswith(b"mmap lm"):
            raise self._invalid("is a binary of KenLM; give the ARPA file that it was built from")
        while first != b"\\data\\":  # tools write remarks above it
            if self._line > 1000 or not first:
                self._fail("no \\data\\ line: this is no ARPA file; to train a model on a text, give it as data.text")
            first = next(self._lines, b"")
        counts: list[int] = []
        for line in self._lines:
            if line.startswith(b"\\"):
                self._expect(line, "\\1-grams:")
                break
            name, sign, count = line.removeprefix(b"ngram").partition(b"=")
            if not sign or name.strip() != str(len(counts) + 1).encode() or not count.strip().isdigit():
                self._fail(f"expected 'ngram {len(counts) + 1}=COUNT', got {line[:80]!r}")
            if len(count.strip()) > DIGITS:
                self._fail(f"a count of {len(count.strip())} digits")
            counts.append(int(count))
        if not counts or not 0 < counts[0] < MOST:
            self._fail("the header counts no words")
        return counts

    def _unigrams(self, count: int) -> Grams:
        known = self._words

        def number(word: bytes) -> int:
            return known.setdefault(word, len(known))

        columns = self._columns(1, count, number)
        if len(known) != count:
            self._fail(f"{count - len(known)} of the {count} words are there twice")
        return columns

    def _grams(self, order: int, count: int) -> Grams:
        self._section(f"\\{order}-grams:")
        return self._columns(order, count, self._words.__getitem__)

    def _columns(self, order: int, count: int, number: Callable[[bytes], int]) -> Grams:
        ids, probability, backoff = array("i"), array("f"), array("f")
        left = count
        lines = self._lines
        try:
            while left:
                parts = next(lines).split()
                if len(parts) == order + 2:
                    backoff.append(float(parts.pop()))
                elif len(parts) == order + 1:
                    backoff.append(0.0)
                else:
                    self._fail(f"expected a number, {order} words and perhaps a number, got {len(parts)} fields")
                probability.append(float(parts[0]))
                ids.extend(map(number, parts[1:]))
                left -= 1
        except KeyError as error:
            self._fail(f"the word {error.args[0].decode(errors='replace')!r} is no unigram of the file")
        except ValueError as error:
            self._fail(str(error))
        except StopIteration:
            self._fail(f"the file ends {left} {order}-grams too early: it is cut off; copy it again")
        return Grams(
            ids=np.frombuffer(ids, dtype=np.int32).reshape(count, order),
            probability=self._checked(probability, order, most=0.0),
            backoff=self._checked(backoff, order, most=np.inf),
        )

    def _checked(self, values: array[float], order: int, *, most: float) -> NDArray[np.float32]:
        found = np.frombuffer(values, dtype=np.float32)
        bad = np.flatnonzero(~(found <= most + 1e-4) | (found == np.inf))
        if len(bad):
            what = "probability" if most == 0 else "backoff"
            self._fail(f"number {bad[0] + 1} of the {order}-grams has the {what} {found[bad[0]]:g} as log10")
        return np.maximum(found, np.float32(NEVER))  # some tools write -inf

    def _section(self, name: str) -> None:
        self._expect(next(self._lines, b""), name)

    def _expect(self, line: bytes, name: str) -> None:
        if line != name.encode():
            got = line[:80].decode(errors="replace")
            self._fail(f"expected {name}, got {got!r}; a count of the header is wrong, or the file is cut off")

    def _fail(self, message: str) -> NoReturn:
        raise self._invalid(message)

    def _invalid(self, message: str) -> JobError:
        return JobError(f"{self._name}:{self._line}: {message}", failure="DataInvalid")
