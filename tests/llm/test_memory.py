"""The forecast against what there is: what is refused, what is computed again, and what one is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner import ranks
from runner.llm import memory
from runner.llm.model.prepared import Adapter
from runner.registry import demand
from runner.registry.demand import RESERVE, ROOM, Shape
from runner.registry.resolve import resolve
from runner.schema.errors import JobError
from tests.llm.model import made
from tests.registry.test_forecast import LLAMA

PATCHES = [{"patch": "linear_cross_entropy", "wanted": True}]
FACTS = LLAMA | {"max_positions": 131072, "embedding_parameters": 2 * 128256 * 4096, "patches": PATCHES}
GB = 10**9
SHAPE = Shape(
    facts=FACTS,
    seq_len=8192,
    rows=1,
    precision="bf16",
    quantize="none",
    rank=16,
    whole=False,
    chunked=True,
    optimizer="adamw",
    checkpointing="auto",
)


def test_activations_are_kept_where_they_fit() -> None:
    short, long = (memory.settle(replace(SHAPE, seq_len=length), memory=80 * GB) for length in (2048, 16384))
    assert (short.checkpointed, long.checkpointed) == (False, True)
    assert short.why.startswith("keeping all activations needs about ")
    assert "; computing them again " in long.why
    assert max(short.forecast["needs"], long.forecast["needs"]) < ROOM * 80 * GB
    assert memory.longest(SHAPE, long.choice, memory=80 * GB) > 16384
    assert short.choice.name == "none"


@pytest.mark.parametrize(
    ("changes", "helps"),
    [
        ({}, "quantize: nf4"),
        ({"checkpointing": "off"}, "optimize.checkpointing: auto, quantize: nf4"),
        ({"rank": None, "rows": 2, "chunked": False}, "optimize.loss_chunking: preferred, fewer batch.rows, adapter"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_longest_that_does(changes: dict[str, Any], helps: str) -> None:
    run = replace(SHAPE, seq_len=10**6, **changes)
    with pytest.raises(JobError, match=helps) as error:
        memory.settle(run, memory=160 * GB)
    assert error.value.failure == "Infeasible"
    longest = int(str(error.value).partition("the longest that fits is ")[2].partition(":")[0])
    again = changes.get("checkpointing") != "off"
    choice = memory.settle(replace(run, seq_len=longest), memory=160 * GB).choice
    assert demand.needs(replace(run, seq_len=longest), choice, processes=1, checkpointed=again) <= 160 * GB
    assert demand.needs(replace(run, seq_len=longest + 8), choice, processes=1, checkpointed=again) > 160 * GB


def test_a_model_too_large_for_any_length_is_refused() -> None:
    with pytest.raises(JobError, match="no length fits: take a larger device or a smaller model"):
        memory.settle(SHAPE, memory=10 * GB)


def test_experts_stay_as_wide_as_they_are() -> None:
    experts = {"count": 8, "per_token": 2, "shared": 0, "intermediate": 14336, "layers": list(range(32))}
    for quantize, has, said in (("nf4", experts, True), ("none", experts, False), ("nf4", None, False)):
        run = replace(SHAPE, quantize=quantize, facts=FACTS | {"experts": has})
        with pytest.raises(JobError, match="no length fits") as error:
            memory.settle(run, memory=GB)
        assert ("experts are not quantised" in str(error.value)) == said


def test_several_processes_share_what_one_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = replace(SHAPE, rank=None, seq_len=2048)
    with pytest.raises(JobError, match="no length fits"):
        memory.settle(whole, memory=80 * GB)
    monkeypatch.setattr(ranks, "size", lambda: 4)
    settled = memory.settle(whole, memory=80 * GB)
    assert settled.choice.name == "fsdp2"
    assert settled.choice.fits
    with pytest.raises(JobError, match=r"cannot train with train\.optimizer 'adafactor'"):
        memory.settle(replace(whole, strategy="zero2", optimizer="adafactor"), memory=80 * GB)


def test_the_optimiser_and_embeddings_that_are_trained_count() -> None:
    sizes = [memory.settle(replace(SHAPE, rank=None, optimizer=name), memory=10**12).forecast["optimizer"]
             for name in ("sgd", "adafactor", "adamw_8bit", "adamw")]  # fmt: skip
    assert sizes == sorted(sizes)
    assert sizes[-1] == 8 * FACTS["parameters"]
    beside, whole = (
        memory.settle(replace(SHAPE, whole=one), memory=10**12).forecast["weights"] for one in (False, True)
    )
    assert whole - beside == 4 * FACTS["embedding_parameters"]
    alone, added = (
        memory.settle(replace(SHAPE, rank=None, whole=one), memory=10**12).forecast for one in (False, True)
    )
    assert alone == added  # all of them are trained anyway


def test_a_process_has_its_share_of_the_machine_or_what_the_spec_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = memory.available("cpu")
    assert memory.available("cpu", limit=2 * GB) == 2 * GB - RESERVE
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert memory.available("cpu") == pytest.approx((alone + RESERVE) // 2 - RESERVE, abs=2)


def test_the_forecast_of_a_real_model_is_what_it_holds(tmp_path: Path) -> None:
    found = resolve(str(made.folder(tmp_path, "llama")), folder=tmp_path).facts
    prepared = made.prepared(tmp_path, adapter=Adapter(type="lora", r=4), seq_len=16)
    assert prepared.forecast["trainable_parameters"] == prepared.trainable
    assert prepared.forecast["weights"] == sum(one.nbytes for one in prepared.model.parameters())
    assert prepared.parameters == found["parameters"] + prepared.trainable
    assert prepared.flops.token == 4 * (found["parameters"] - 2 * 40 * 32) + 6 * prepared.trainable
    assert prepared.flops.head == 4 * 40 * 32
    with pytest.raises(JobError, match=r"batch\.seq_len 1000000 .*set batch\.seq_len to "):
        made.prepared(tmp_path, seq_len=10**6, memory_bytes=7 * 10**8)
