"""What is read for a run, and what its steps are made with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.llm import lessons
from runner.llm.corpus import Corpus
from runner.llm.data.corpora import Source
from runner.llm.data.skipped import Skipped
from runner.llm.lessons import Lessons
from runner.llm.packing.loader import Loader
from tests.llm.packing.made import stored

LAYOUT: dict[str, Any] = {"packed": True, "seq_len": 16, "rows": 2, "accumulate": 3, "pad_id": 7, "long": "drop"}


class Reader:
    """As much of ``Texts`` as is asked: corpora of ten documents each, by field."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.encoder, self.skipped = folder, SimpleNamespace(), Skipped("skip")
        self.said: list[str] = []
        self.say = self.said.append

    def encoded(self, _source: Source, field: str) -> Corpus:
        return stored(self.folder / field, [4] * 10)

    def blocks(self, sources: list[Source], **given: Any) -> Any:
        return [source.name for source in sources], given


def read(folder: Path, *weights: float, held: int = 0, streaming: bool = False, share: float = 0.0) -> Lessons:
    reader: Any = Reader(folder)
    files: dict[str, Any] = {"files": (folder / "a.jsonl",), "columns": {}}
    train = {f"train[{i}]": Source(name=f"{i}", weight=weight, **files) for i, weight in enumerate(weights)}
    kept = {f"held[{i}]": Source(name=f"held {i}", **files) for i in range(held)}
    return lessons.read(reader, train, kept, streaming=streaming, share=share, seed=5, block=9)


def steps(found: Lessons, folder: Path) -> Any:
    ends: dict[str, Any] = {"epochs": None, "max_steps": 11}
    return found.steps(LAYOUT, look_ahead=8, seed=6, **ends, journal=folder / "blocks.jsonl")


def test_steps_take_what_is_said_of_them(tmp_path: Path) -> None:
    made = steps(read(tmp_path, 0.5, 2.0), tmp_path)
    assert isinstance(made, Loader)
    assert (list(made.weights), made.seed, made.look_ahead) == ([0.5, 2.0], 6, 8)
    assert (made.epochs, made.max_steps, made.total) == (None, 11, 11)
    assert {name: getattr(made, name) for name in LAYOUT} == LAYOUT
    first = next(iter(made.begin(0)))
    assert first.documents == 2 * 3 * 4  # rows of four documents in each of three passes


def test_a_share_is_kept_back(tmp_path: Path) -> None:
    whole, part = read(tmp_path / "a", 1.0, 1.0), read(tmp_path / "b", 1.0, 1.0, share=0.25)
    assert (sum(map(len, whole.train)), whole.validation) == (20, [])
    assert (sum(map(len, part.train)), sum(map(len, part.validation))) == (15, 5)
    assert whole.held(LAYOUT) is None


def test_all_that_is_held_is_measured_once(tmp_path: Path) -> None:
    found = read(tmp_path, 1.0, held=2).held(LAYOUT)
    assert found is not None
    assert [len(one) for one in found.corpora] == [10, 10]
    assert (list(found.weights), found.epochs, found.seed, found.accumulate) == ([1.0, 1.0], 1, 0, 1)
    assert sum(step.documents for step in found.begin(0)) == 20


def test_a_stream_is_read_in_blocks_and_needs_an_end(tmp_path: Path) -> None:
    found = read(tmp_path, 1.0, 3.0, held=1, streaming=True)
    assert found.train == []
    assert [len(one) for one in found.validation] == [10]
    blocks: Any = found.blocks
    assert blocks == (["0", "1"], {"size": 9, "seed": 5})
    made = steps(found, tmp_path)
    assert (made.journal, made.max_steps, made.long) == (tmp_path / "blocks.jsonl", 11, "drop")
    with pytest.raises(AssertionError, match="a stream has no end of its own"):
        found.steps(LAYOUT, look_ahead=8, seed=6, epochs=1.0, max_steps=None, journal=tmp_path)
