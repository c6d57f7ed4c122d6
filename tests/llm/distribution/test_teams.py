"""Two processes, real gloo, real DeepSpeed: the steps of one process, whatever is shared, and no trace of a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runner.schema.errors import JobError
from tests.llm.distribution import teams
from tests.llm.distribution.teams import Wanted

SHARDS = {"ddp": False, "fsdp2": True, "zero2": False, "zero3": True}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[bool, str], dict[str, Any]]:
    """What one process makes of it, by adapter and precision."""
    cases = [(True, "fp32"), (False, "fp32"), (False, "bf16")]
    made = {}
    for adapter, precision in cases:
        folder = tmp_path_factory.mktemp("alone")
        made[adapter, precision] = teams.run(folder, Wanted(adapter=adapter, precision=precision), processes=1)
    return made


def compare(one: dict[str, Any], other: dict[str, Any], *, rel: float, weights: float) -> None:
    assert len(one["history"]) == teams.STEPS
    for mine, its in zip(one["history"], other["history"], strict=True):
        assert mine == pytest.approx(its, rel=rel)
    assert one["state"].keys() == other["state"].keys()
    for name, weight in one["state"].items():
        assert np.abs(weight - other["state"][name]).max() < weights, name


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARDS)
def test_an_adapter_learns_as_in_one_process_though_one_of_two_is_killed(
    name: str, alone: dict[tuple[bool, str], dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(JobError, match="process 1 was ended by SIGKILL") as caught:
        teams.run(tmp_path, Wanted(strategy=name, kill=True))
    assert caught.value.failure == "Preempted"
    made = teams.run(tmp_path, Wanted(strategy=name))
    assert made["name"] == name
    assert made["lines"][0] == "goes on after step 4 of 8"
    assert bool(made["shared"] or True in made["partitioned"]) == SHARDS[name]
    compare(made, alone[True, "fp32"], rel=1e-5, weights=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp2", "zero3"])
def test_whole_weights_come_back_from_those_who_share_them(
    name: str, alone: dict[tuple[bool, str], dict[str, Any]], tmp_path: Path
) -> None:
    """All of a model is trained, whose embeddings are its head."""
    compare(teams.run(tmp_path, Wanted(strategy=name, adapter=False)), alone[False, "fp32"], rel=1e-5, weights=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp2", "zero2"])
def test_products_in_16_bits_are_those_of_one_process(
    name: str, alone: dict[tuple[bool, str], dict[str, Any]], tmp_path: Path
) -> None:
    """Not fewer of them: accelerate with FSDP2 makes none, or rounds losses and sums of gradients too."""
    made = teams.run(tmp_path, Wanted(strategy=name, adapter=False, precision="bf16"))
    assert made["history"][0] != pytest.approx(alone[False, "fp32"]["history"][0], rel=1e-6)
    for mine, its in zip(made["history"], alone[False, "bf16"]["history"], strict=True):
        assert mine == pytest.approx(its, rel=1e-3)
