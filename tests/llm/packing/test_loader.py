"""Every document is learned exactly once an epoch, packed or padded, by however many processes; counts are exact."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.llm.corpus import Corpus
from runner.llm.data.skipped import Skipped
from runner.llm.packing import pieces
from runner.llm.packing.loader import Loader
from runner.llm.packing.step import Step
from runner.schema.errors import JobError
from tests.llm.packing.made import found, restored, stored, tokens

PACKED = pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])


def loader(corpora: list[Corpus], **options: Any) -> Loader:
    usual: dict[str, Any] = {"weights": [1.0] * len(corpora), "packed": True, "seq_len": 16, "rows": 1}
    usual |= {"accumulate": 2, "seed": 0, "pad_id": 0}
    return Loader(corpora=corpora, **usual | options)


def learned(steps: list[Step]) -> Counter[tuple[Any, ...]]:
    """How often each document was in a batch; those that wait for others hold nothing learned."""
    every = [tuple(one) for step in steps for batch in step.batches for one in found(batch)]
    return Counter(one for one in every if any(taught for _, taught in one))


@pytest.mark.parametrize("seed", range(12))
@PACKED
def test_each_document_is_learned_once_an_epoch_by_any_team(seed: int, packed: bool, tmp_path: Path) -> None:
    draw = random.Random(seed)
    seq_len, size = draw.randint(8, 40), draw.choice([1, 2, 3])
    lengths = [[draw.randint(2, seq_len) for _ in range(draw.randint(1, 40))] for _ in range(2)]
    made = [stored(tmp_path / "a", lengths[0]), stored(tmp_path / "b", lengths[1], first=100_000)]
    options: dict[str, Any] = {"packed": packed, "seq_len": seq_len, "rows": draw.randint(1, 3), "epochs": 2}
    options |= {"accumulate": size * draw.randint(1, 3), "look_ahead": draw.randint(1, 50), "seed": seed, "size": size}
    teams = [loader(made, rank=rank, **options) for rank in range(size)]
    steps = [list(one.begin(0)) for one in teams]
    wanted = [tuple(tokens(restored(one, i))) for one in made for i in range(len(one))]
    assert learned(list(itertools.chain(*steps))) == Counter(wanted * 2)
    assert {one.total for one in teams} == {len(steps[0])}
    for number, together in enumerate(zip(*steps, strict=True)):
        exact(together, number=number, packed=packed)


def exact(together: tuple[Step, ...], *, number: int, packed: bool) -> None:
    """The counts of a step are those of all processes' batches."""
    assert len({(one.number, one.targets, one.tokens, one.computed, one.documents) for one in together}) == 1
    assert len({len(one.batches) for one in together}) == 1 and together[0].batches
    batches = [batch for one in together for batch in one.batches]
    busy = [batch for batch in batches if bool((batch["labels"] != -100).any())]
    first = together[0]
    assert first.number == number
    assert first.targets == sum(int((batch["labels"] != -100).sum()) for batch in busy)
    assert first.computed == sum(batch["input_ids"].numel() for batch in busy)
    assert first.documents == sum(len(found(batch)) for batch in busy)
    assert first.tokens == sum(len(one) for batch in busy for one in found(batch))
    assert not packed or first.tokens == first.computed


@PACKED
def test_teams_of_any_size_compute_the_same_forward_passes(packed: bool, tmp_path: Path) -> None:
    made = [stored(tmp_path / "a", [random.Random(1).randint(2, 16) for _ in range(50)])]

    def passes(size: int) -> list[set[str]]:
        teams = [loader(made, packed=packed, accumulate=6, rows=2, epochs=1, rank=r, size=size) for r in range(size)]
        together = zip(*(one.begin(0) for one in teams), strict=True)
        every = [[batch for one in steps for batch in one.batches] for steps in together]
        return [{str(batch["input_ids"].tolist()) for batch in one if (batch["labels"] != -100).any()} for one in every]

    assert passes(1) == passes(2) == passes(3)


@PACKED
@pytest.mark.parametrize("length", [{"epochs": 2.5}, {"max_steps": 37}], ids=["epochs", "max_steps"])
def test_a_run_goes_on_at_any_step_as_if_it_had_never_stopped(
    packed: bool, length: dict[str, Any], tmp_path: Path
) -> None:
    made = [stored(tmp_path / "a", [random.Random(1).randint(2, 16) for _ in range(30)])]
    options = length | {"packed": packed, "look_ahead": 7, "accumulate": 3, "weights": [1.5]}
    whole = list(loader(made, **options).begin(0))
    assert [step.number for step in whole] == list(range(loader(made, **options).total))
    for number in [1, 4, len(whole) - 1, len(whole)]:
        again = list(loader(made, **options).begin(number))
        assert len(again) == len(whole) - number
        for one, other in zip(again, whole[number:], strict=True):
            assert (one.number, one.targets, one.documents) == (other.number, other.targets, other.documents)
            assert all(
                torch.equal(x["input_ids"], y["input_ids"]) and torch.equal(x["labels"], y["labels"])
                for x, y in zip(one.batches, other.batches, strict=True)
            )


@PACKED
def test_epochs_flow_into_each_other_and_only_the_last_step_is_smaller(packed: bool, tmp_path: Path) -> None:
    made = [stored(tmp_path / "a", [16] * 7)]
    one = loader(made, packed=packed, rows=2, epochs=3)
    steps = list(one.begin(0))
    assert [step.documents for step in steps] == [4, 4, 4, 4, 4, 1]
    assert one.total == 6
    orders = [[batch["input_ids"].tolist() for batch in step.batches] for step in steps]
    assert orders[0] != orders[2]  # another order in another epoch
    more = loader(made, packed=packed, rows=2, max_steps=20)
    assert [step.documents for step in more.begin(0)] == [4] * 20


def test_a_part_of_an_epoch_takes_a_part_of_the_documents(tmp_path: Path) -> None:
    made = [stored(tmp_path / "a", [16] * 10)]
    one = loader(made, accumulate=1, epochs=1.3)
    counts = learned(list(one.begin(0)))
    assert one.total == 13 and sorted(counts.values()) == [1] * 7 + [2] * 3
    assert loader(made, accumulate=1, epochs=0.01).total == 1


def test_weights_say_how_often_documents_are_taken(tmp_path: Path) -> None:
    made = [stored(tmp_path / "a", [9] * 4), stored(tmp_path / "b", [8] * 4, first=1000)]
    counts = learned(list(loader(made, weights=[2.0, 0.5], epochs=2).begin(0)))
    assert sorted(counts.values()) == [1] * 4 + [4] * 4


@PACKED
@pytest.mark.parametrize("long", ["split", "truncate", "drop"])
def test_documents_longer_than_a_row_become_what_is_said(packed: bool, long: pieces.Long, tmp_path: Path) -> None:
    draw = random.Random(5)
    lengths = [draw.choice([5, 16, 17, 31, 32, 100]) for _ in range(40)]
    made = [stored(tmp_path / "a", lengths, learned=0.9)]
    one = loader(made, packed=packed, long=long, epochs=1)
    every = learned(list(one.begin(0)))
    wanted: Counter[tuple[Any, ...]] = Counter()
    for index in range(len(lengths)):
        document = tokens(restored(made[0], index))
        for start, stop in pieces.spans(len(document), capacity=16, long=long):
            piece = ((document[start][0], False), *document[start + 1 : stop])
            wanted.update([piece] if any(taught for _, taught in piece) else [])
    assert every == wanted
    targets = sum(taught for document, n in every.items() for _, taught in document * n)
    assert targets == one.cut.targets - one.cut.targets_lost
    assert one.cut.longer == sum(length > 16 for length in lengths)
    assert (
        one.cut.tokens_lost
        == {
            "split": 0,
            "truncate": sum(max(0, length - 16) for length in lengths),
            "drop": sum(length for length in lengths if length > 16),
        }[long]
    )
    assert long != "split" or one.cut.targets_lost == 0


def test_a_document_whose_answer_was_cut_off_is_left_out_and_counted(tmp_path: Path) -> None:
    made = [stored(tmp_path / "a", [5, 30, 16], learned=0.0)]  # the last token alone is learned
    one = loader(made, epochs=1)
    assert sorted(len(piece) for piece in learned(list(one.begin(0)))) == [5, 16]
    assert (one.cut.unlearned, one.cut.targets, one.cut.targets_lost, one.cut.left_out) == (1, 3, 1, 1)
    assert one.skipped.counts == {"nothing to learn": 1}


def test_a_document_whose_answer_was_cut_off_stops_the_job_with_its_place(tmp_path: Path) -> None:
    made = [stored(tmp_path / name, lengths, learned=0.0) for name, lengths in (("a", [5]), ("b", []), ("c", [9, 30]))]
    made.append(made[2].take([1]))
    with pytest.raises(JobError) as caught:
        loader(made, epochs=1, skipped=Skipped("stop"))
    assert caught.value.failure == "DataInvalid"
    assert str(caught.value) == (
        "a.jsonl:1: nothing to learn: packing.long: truncate ends it after 16 tokens, before the first that is "
        "learned; set a longer batch.seq_len, or packing.long: split; mend the row, or leave such rows out with "
        "data.on_error: skip"
    )
    with pytest.raises(JobError, match=r"no token that is learned in what is left of them, first a.jsonl:1; see"):
        loader(made[3:], epochs=1)
    for long in ("split", "drop"):  # a spec that asks to drop them is told how many alone
        assert loader(made, epochs=1, long=long, skipped=Skipped("stop")).cut.longer == 2


def test_what_was_cut_is_told_in_words() -> None:
    cut = pieces.Cut(documents=2000, targets=65, longer=15, targets_lost=50, left_out=15)
    assert cut.told(longest=64, long="truncate") == (
        "15 of 2,000 documents are longer than 64 tokens: 50 of 65 targets lost, 15 documents left out "
        "(packing.long: truncate)"
    )
    assert pieces.Cut(documents=2000).told(longest=64, long="drop") is None


def test_nothing_to_learn_is_said_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"of 2 documents 1 are longer than 16 tokens") as caught:
        loader([stored(tmp_path / "a", [30], learned=0.0), stored(tmp_path / "b", [1])], epochs=1)
    assert caught.value.failure == "DataInvalid"
    with pytest.raises(JobError, match="nothing to learn: of 0 documents"):
        loader([stored(tmp_path / "c", [])], epochs=1)
    with pytest.raises(JobError, match="takes none of 1 documents by weights"):
        loader([stored(tmp_path / "d", [5])], weights=[0.1], max_steps=1)


def test_processes_share_accumulated_passes_alike_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="is no multiple of the 3 processes that share it: set it to 6"):
        loader([stored(tmp_path / "a", [5])], accumulate=4, size=3, epochs=1)


def test_who_has_no_work_in_the_last_step_waits_with_a_batch_without_labels(tmp_path: Path) -> None:
    made = [stored(tmp_path / "a", [16] * 3)]
    for packed in (True, False):
        last = [next(loader(made, packed=packed, rank=rank, size=2, epochs=1).begin(1)) for rank in range(2)]
        assert [bool((one.batches[0]["labels"] != -100).any()) for one in last] == [True, False]
        assert last[1].batches[0].keys() == last[0].batches[0].keys()
        assert last[0].documents == 1


def test_a_forward_pass_holds_no_more_documents_than_its_kernel_takes(tmp_path: Path) -> None:
    made = [stored(tmp_path / "a", [2] * 40)]
    steps = list(loader(made, rows=2, epochs=1, most_documents=6).begin(0))
    assert max(len(found(batch)) for step in steps for batch in step.batches) == 6


def test_a_padded_pass_holds_documents_of_about_the_same_length(tmp_path: Path) -> None:
    made = [stored(tmp_path / "a", [3, 40, 4, 39])]
    (step,) = loader(made, packed=False, seq_len=64, rows=2, epochs=1).begin(0)
    assert [tuple(batch["input_ids"].shape) for batch in step.batches] == [(2, 40), (2, 8)]
    assert (step.tokens, step.computed) == (86, 96)


def test_a_packed_row_is_what_transformers_and_kernels_want(tmp_path: Path) -> None:
    made = [stored(tmp_path / "a", [5, 3, 7], learned=1.0)]
    (batch,) = next(loader(made, accumulate=1, epochs=1).begin(0)).batches
    assert "attention_mask" not in batch and batch["use_cache"] is False
    lengths = batch["cu_seq_lens_q"].diff().tolist()
    assert sorted(lengths) == [3, 5, 7] and batch["cu_seq_lens_q"].dtype == torch.int32
    assert batch["max_length_q"] == batch["max_length_k"] == 7
    assert batch["position_ids"].tolist() == [[place for length in lengths for place in range(length)]]
    assert (batch["labels"] == -100).tolist() == [[place == 0 for length in lengths for place in range(length)]]
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
    (of_axes,) = next(loader(made, accumulate=1, epochs=1, position_axes=4).begin(0)).batches
    assert torch.equal(of_axes["position_ids"], batch["position_ids"].expand(4, 1, 15))


@pytest.mark.parametrize(
    ("lengths", "held"),
    [([16] * 60 + [4, 5, 4], [5, 4, 4]), ([16] * 200 + [4, 5], [5, 4]), ([16] * 9, [16]), ([16] * 300 + [9, 9], [16])],
)
def test_probes_are_given_a_row_of_several_documents_where_there_is_any(
    lengths: list[int], held: list[int], tmp_path: Path
) -> None:
    made = [stored(tmp_path / "a", lengths)]
    batches = [loader(made, epochs=1, rank=rank, size=2).trial() for rank in range(2)]
    assert sorted(map(len, found(batches[0])), reverse=True) == held
    assert torch.equal(batches[0]["input_ids"], batches[1]["input_ids"])
    assert len(found(loader(made, epochs=1, packed=False, rows=2).trial())) == 2
