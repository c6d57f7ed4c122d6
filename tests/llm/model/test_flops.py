"""Operations of a step: of the tokens that are computed, in the layers and in the head."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.llm.model.prepared import Adapter
from runner.llm.packing.step import Step
from runner.registry.resolve import resolve
from tests.llm.model import made

STEP = Step(number=0, batches=(), targets=3, tokens=10, computed=16, documents=2)
HEAD = 40 * 32


@pytest.mark.parametrize(("optimize", "rows"), [(made.ALL, 3), (made.OFF, 10)], ids=["labels alone", "every token"])
def test_the_head_counts_where_it_is_computed(tmp_path: Path, optimize: dict[str, str], rows: int) -> None:
    facts = resolve(str(made.folder(tmp_path, "llama")), folder=tmp_path).facts
    prepared = made.prepared(tmp_path, optimize=optimize)
    layers = facts["parameters"] - 2 * HEAD
    assert prepared.operations(STEP) == 6 * (layers * 10 + HEAD * rows)


def test_weights_that_are_frozen_have_no_gradient(tmp_path: Path) -> None:
    facts = resolve(str(made.folder(tmp_path, "llama")), folder=tmp_path).facts
    adapter = Adapter(type="lora", r=4)
    prepared = made.prepared(tmp_path, adapter=adapter)
    layers = 4 * (facts["parameters"] - 2 * HEAD) + 6 * prepared.trainable
    assert prepared.operations(STEP) == layers * 10 + 4 * HEAD * 3
    whole = Adapter(type="lora", r=4, modules_to_save=("embed_tokens", "lm_head"))
    trained = made.prepared(tmp_path, adapter=whole)
    assert trained.trainable == prepared.trainable + 2 * HEAD
    assert trained.operations(STEP) == layers * 10 + 6 * HEAD * 3
