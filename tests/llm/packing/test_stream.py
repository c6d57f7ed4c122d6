"""A stream gives the same steps however often it is broken off, in the memory of two blocks."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.llm.data import mixture
from runner.llm.data.sample import Sample, Text
from runner.llm.data.skipped import Skipped
from runner.llm.document import Document
from runner.llm.packing import pieces, stream
from runner.llm.packing.step import Step
from runner.llm.packing.stream import Block, StreamSteps
from runner.schema.errors import JobError
from tests.llm.packing.made import documents, found, tokens

draw = random.Random(0)
NONE = Skipped("skip").to_json()
WHOLE = documents([draw.choice([2, 5, 9, 16, 40]) for _ in range(200)], learned=0.8)


class Blocks:
    """Documents in blocks of 10; the state is the number of the next block. Counts what is asked of it."""

    def __init__(self, whole: Sequence[Document] = WHOLE) -> None:
        self.whole = whole
        self.begun: list[int] = []

    def __call__(self, state: int | None) -> Iterator[Block]:
        for number in range(state or 0, len(self.whole) // 10):
            self.begun.append(number)
            yield self.whole[10 * number : 10 * number + 10], number + 1, NONE


def steps(folder: Path, blocks: stream.Blocks, **options: Any) -> StreamSteps:
    usual: dict[str, Any] = {"packed": True, "seq_len": 16, "rows": 2, "accumulate": 2, "pad_id": 0, "max_steps": 20}
    return StreamSteps(blocks=blocks, journal=folder / "blocks.jsonl", **usual | options)


def same(one: Step, other: Step) -> bool:
    return (one.number, one.targets, one.tokens, one.documents) == (
        other.number,
        other.targets,
        other.tokens,
        other.documents,
    ) and all(torch.equal(x["input_ids"], y["input_ids"]) for x, y in zip(one.batches, other.batches, strict=True))


@pytest.mark.parametrize("long", ["split", "truncate", "drop"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_documents_come_once_and_in_their_blocks(packed: bool, long: pieces.Long, tmp_path: Path) -> None:
    made = steps(tmp_path, Blocks(), packed=packed, long=long, accumulate=1, rows=1, max_steps=60)
    batches = [batch for step in made.begin(0) for batch in step.batches]
    seen = [tuple(one) for batch in batches for one in found(batch)]
    wanted = [
        ((document[start][0], False), *document[start + 1 : stop])
        for document in map(tokens, WHOLE)
        for start, stop in pieces.spans(len(document), capacity=16, long=long)
    ]
    wanted = [piece for piece in wanted if any(taught for _, taught in piece)]
    assert len(set(seen)) == len(seen) > 60 * packed and set(seen) <= set(wanted)
    if not packed:
        assert seen == wanted[: len(seen)]
    assert made.cut.documents >= 20 and made.cut.longer > 0
    assert (made.cut.tokens_lost == made.cut.targets_lost == 0) == (long == "split")
    assert made.total == 60


def test_counts_are_those_of_all_processes_and_passes_the_same(tmp_path: Path) -> None:
    (alone,) = [list(steps(tmp_path, Blocks()).begin(0))]
    teams = [list(steps(tmp_path / str(rank), Blocks(), rank=1, size=2).begin(0)) for rank in range(1)]
    first = list(steps(tmp_path, Blocks(), rank=0, size=2).begin(0))
    for whole, one, other in zip(alone, first, teams[0], strict=True):
        assert whole.targets == one.targets == other.targets
        assert sum(int((b["labels"] != -100).sum()) for s in (one, other) for b in s.batches) == whole.targets
        assert {str(b["input_ids"].tolist()) for b in whole.batches} == {
            str(b["input_ids"].tolist()) for s in (one, other) for b in s.batches
        }


def test_a_run_that_goes_on_begins_with_the_block_it_was_in(tmp_path: Path) -> None:
    whole = list(steps(tmp_path, Blocks()).begin(0))
    noted = (tmp_path / "blocks.jsonl").read_text()
    for number in [0, 1, 7, 19]:
        blocks = Blocks()
        again = list(steps(tmp_path, blocks).begin(number))
        assert len(again) == 20 - number and all(map(same, again, whole[number:]))
        assert number < 7 or blocks.begun[0] > 1
        assert (tmp_path / "blocks.jsonl").read_text() == noted  # nothing is noted twice


def test_a_journal_that_a_kill_cut_in_a_line_or_took_costs_time_alone(tmp_path: Path) -> None:
    whole = list(steps(tmp_path, Blocks()).begin(0))
    journal = tmp_path / "blocks.jsonl"
    noted = journal.read_text()
    for left in (noted[: len(noted) // 2], ""):
        journal.write_text(left)
        assert all(map(same, list(steps(tmp_path, Blocks()).begin(11)), whole[11:]))
        assert journal.read_text() == noted


class Losing(Blocks):
    """Each block but every third leaves a sample out; every fifth has nothing else. The documents come round again."""

    def __call__(self, state: int | None) -> Iterator[Block]:
        for number in itertools.count(state or 0):
            turn = number % 20
            broken = Skipped("skip")
            for place in [f"a:{turn}"] * (turn % 3 > 0):
                broken.add(place, "not JSON: x")
            yield self.whole[10 * turn : 10 * turn + 10 * (turn % 5 > 0)], number + 1, broken.to_json()


def test_a_run_that_goes_on_knows_what_was_cut_and_left_out_before(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 60}
    whole = documents([draw.choice([2, 5, 9, 16, 40]) for _ in range(200)], learned=0.1)
    unbroken = steps(tmp_path, Losing(whole), skipped=Skipped("skip"), **options)
    every = list(unbroken.begin(0))
    assert unbroken.cut.documents > 200 and 0 < unbroken.cut.left_out < unbroken.cut.longer
    counts = dict(unbroken.skipped.counts)
    assert counts["not JSON"] == 13 and counts["nothing to learn"] == len(unbroken.skipped.listed) - 13 > 5
    noted = (tmp_path / "blocks.jsonl").read_text()
    for number in [0, 1, 13, 40, 59, 60]:
        again = steps(tmp_path, Losing(whole), skipped=Skipped("skip"), **options)
        again.trial()
        assert all(itertools.starmap(same, zip(again.begin(number), every[number:], strict=True)))
        assert again.cut == unbroken.cut
        assert again.skipped.to_json() == unbroken.skipped.to_json()
        assert (tmp_path / "blocks.jsonl").read_text() == noted


def test_a_document_whose_truncation_leaves_nothing_stops_a_stream(tmp_path: Path) -> None:
    lost = documents([5, 16, 30, 7] * 10, learned=0.0)  # the last token alone is learned
    made = steps(tmp_path, Blocks(lost), skipped=Skipped("stop"))
    made.trial()
    with pytest.raises(JobError, match=r"^a.jsonl:2: nothing to learn: packing.long: truncate ends it after 16 tokens"):
        next(made.begin(0))
    for long in ("split", "drop"):
        assert next(steps(tmp_path, Blocks(lost), skipped=Skipped("stop"), long=long).begin(0)).targets > 0


def test_at_most_one_block_is_made_ahead(tmp_path: Path) -> None:
    blocks = Blocks()
    begun = steps(tmp_path, blocks).begin(0)
    next(begun)
    assert len(blocks.begun) <= 2
    del begun
    assert not [one for one in threading.enumerate() if one.name.startswith("documents")]


def test_an_end_before_the_last_step_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"the stream ends in step \d+ of 20, after 20 documents") as caught:
        list(steps(tmp_path, Blocks(WHOLE[:20])).begin(0))
    assert caught.value.failure == "DataInvalid"


def test_a_stream_without_anything_to_learn_ends_with_words(tmp_path: Path) -> None:
    def empty(state: int | None) -> Iterator[Block]:
        for number in itertools.count(state or 0):
            yield documents([1]) if number == 0 else [], number + 1, NONE

    with pytest.raises(JobError, match="nothing to learn in 10 blocks of documents one after the other"):
        list(steps(tmp_path, empty).begin(0))
    with pytest.raises(JobError, match="nothing to learn in 10 blocks"):
        steps(tmp_path, empty).trial()


@pytest.mark.parametrize("of", ["trial", "steps"])
def test_a_stream_without_anything_to_learn_says_why_shows_one_and_what_to_do(of: str, tmp_path: Path) -> None:
    def long(state: int | None) -> Iterator[Block]:
        for number in itertools.count(state or 0):
            yield documents([40, 40], learned=0.0), number + 1, NONE

    def broken(state: int | None) -> Iterator[Block]:
        left_out = Skipped("skip")
        left_out.add("b.jsonl:3", "no good: at all")
        for number in itertools.count(state or 0):
            yield [], number + 1, left_out.to_json()

    def told(blocks: stream.Blocks) -> str:
        made = steps(tmp_path, blocks)
        with pytest.raises(JobError) as caught:
            made.trial() if of == "trial" else list(made.begin(0))
        assert caught.value.failure == "DataInvalid"
        return str(caught.value)

    begin = "there is nothing to learn in 10 blocks of documents one after the other: of "
    assert told(long) == (
        f"{begin}20 documents 20 are longer than 16 tokens (batch.seq_len, or what the model has positions for; "
        f"packing.long: truncate), and 20 hold no token that is learned; the first left out: a.jsonl:0: "
        f"{pieces.truncated(16)}; see them with `runner explain data`, and set a longer seq_len or packing.long: split"
    )
    assert told(broken) == (
        f"{begin}0 documents 0 are longer than 16 tokens (batch.seq_len, or what the model has positions for; "
        "packing.long: truncate), and 0 hold no token that is learned; the first left out: b.jsonl:3: no good: at all; "
        "see them with `runner explain data`"
    )


def test_what_was_learned_before_is_no_part_of_the_reason(tmp_path: Path) -> None:
    def dries(state: int | None) -> Iterator[Block]:
        for number in itertools.count(state or 0):
            yield documents([9] if number < 5 else [40], learned=0.0), number + 1, NONE

    with pytest.raises(JobError, match=r"of 10 documents 10 are longer than 16 tokens"):
        list(steps(tmp_path, dries).begin(0))


def test_an_error_of_whoever_makes_documents_arrives(tmp_path: Path) -> None:
    def broken(state: int | None) -> Iterator[Block]:
        yield WHOLE[:10], 1, NONE
        raise JobError("a.jsonl:11: no JSON", failure="DataInvalid")

    with pytest.raises(JobError, match="no JSON"):
        list(steps(tmp_path, broken).begin(0))


def test_samples_of_a_mixture_become_blocks_and_broken_ones_are_told(tmp_path: Path) -> None:
    reading = Skipped("skip")

    def source(name: str) -> mixture.Opened[Sample]:
        def rows(begin: int) -> Iterator[tuple[int, Sample]]:
            for row in range(begin, 30):
                if row % 7 == 6:
                    reading.add(f"{name}:{row}", "not JSON: x")
                else:
                    yield row, Text(place=f"{name}:{row}", text="x" * (row + 2))

        return rows

    def opened(state: Any) -> mixture.Stream[Sample]:
        return mixture.Stream([source("a"), source("b")], [2.0, 1.0], seed=1, block=8, state=state)

    def encode(samples: Sequence[Sample]) -> list[Document | tuple[str, str]]:
        made: list[Document | tuple[str, str]] = []
        for one in samples:
            assert isinstance(one, Text)
            broken = one.place == "a:3"
            (document,) = documents([len(one.text)], first=len(one.text), learned=0)
            made.append((one.place, "no good") if broken else replace(document, place=one.place))
        return made

    blocks = stream.encoded(opened, encode=encode, skipped=reading, size=12)
    options: dict[str, Any] = {"seq_len": 20, "rows": 1, "max_steps": 24}
    unbroken = steps(tmp_path, blocks, skipped=Skipped("skip"), **options)
    whole = list(unbroken.begin(0))
    assert unbroken.skipped.counts == {"not JSON": 8, "no good": 1, "nothing to learn": 18}
    for number in (3, 9, 20):
        again = steps(tmp_path, blocks, skipped=Skipped("skip"), **options)
        again.trial()
        assert all(map(same, list(again.begin(number)), whole[number:]))
        assert (again.cut, again.skipped.to_json()) == (unbroken.cut, unbroken.skipped.to_json())


def test_probes_are_given_the_most_mixed_row_of_the_first_block(tmp_path: Path) -> None:
    made = steps(tmp_path, Blocks(), rows=1)
    held = found(made.trial())
    assert len(held) > 1 and all(one[0][0] in {document.ids[0] for document in WHOLE[:10]} for one in held)
    assert made.cut.documents == 0 and not (tmp_path / "blocks.jsonl").exists()
