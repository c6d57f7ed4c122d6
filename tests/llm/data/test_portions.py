"""Long samples come in smaller portions, so that the tokens of one fit in the memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runner.llm.data import mixture
from runner.llm.data.corpora import Source
from runner.llm.data.portions import CHARACTERS, MOST, portions
from runner.llm.data.sample import Chat, Completion, Sample, Text
from runner.llm.data.skipped import Skipped
from runner.llm.document import Document
from runner.llm.packing import stream
from runner.llm.texts import Texts

QUARTER = "x" * (CHARACTERS // 4)
LONG: dict[str, Callable[[str], Sample]] = {
    "text": lambda place: Text(place=place, text=QUARTER),
    "completion": lambda place: Completion(place=place, prompt=QUARTER[:-9], completion="x" * 9),
    "chat": lambda place: Chat(place=place, messages=[{"role": "user", "content": QUARTER}]),
    "tools": lambda place: Chat(place=place, messages=[], tools=[{"description": QUARTER}]),
}


def test_a_portion_ends_by_number() -> None:
    samples = [Text(place=str(number), text="x") for number in range(2 * MOST + 3)]
    made = list(portions(samples))
    assert [len(few) for few in made] == [MOST, MOST, 3]
    assert [one for few in made for one in few] == samples
    assert list(portions([])) == []


@pytest.mark.parametrize("kind", LONG)
def test_a_portion_ends_by_size(kind: str) -> None:
    read: list[str] = []

    def samples() -> Iterator[Sample]:
        for place in map(str, itertools.count()):
            read.append(place)
            yield LONG[kind](place)

    made = portions(samples())
    for number in range(3):
        assert [one.place for one in next(made)] == [str(4 * number + at) for at in range(4)]
        assert len(read) == 4 * (number + 1)  # nothing is read ahead


class Encoder:
    """Notes how many samples it was given at once."""

    split = 0

    def __init__(self) -> None:
        self.given: list[int] = []
        self.special = SimpleNamespace(count=0)

    def encode(self, samples: Sequence[Sample]) -> list[Document | tuple[str, str]]:
        self.given.append(len(samples))
        learned = np.array([False, True])
        return [Document(place=one.place, ids=np.zeros(2, np.int32), learned=learned) for one in samples]


def test_a_corpus_on_the_disk_is_encoded_in_portions(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join([QUARTER] * 6))
    encoder: Any = Encoder()
    texts = Texts(encoder=encoder, skipped=Skipped("stop"), folder=tmp_path, say=lambda text: None, check=lambda: None)
    made = texts.encoded(Source(name="a.txt", files=(tmp_path / "a.txt",), columns={}), "a")
    assert (len(made), encoder.given) == (6, [4, 2])


def test_a_block_of_a_stream_is_encoded_in_portions() -> None:
    def rows(begin: int) -> Iterator[tuple[int, Sample]]:
        return ((number, LONG["text"](str(number))) for number in range(begin, 99))

    def opened(state: Any) -> mixture.Stream[Sample]:
        return mixture.Stream([rows], [1.0], seed=1, block=10, state=state)

    encoder = Encoder()
    blocks = stream.encoded(opened, encode=encoder.encode, skipped=Skipped("stop"), size=10)(None)
    documents, state, _ = next(blocks)
    assert (len(documents), encoder.given) == (10, [4, 4, 2])
    assert state["block"] == 1
