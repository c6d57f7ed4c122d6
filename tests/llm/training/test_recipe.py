"""The rate over a run, and what optimisers need."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.llm.training.arguments import arguments
from runner.llm.training.recipe import Rate
from runner.schema.errors import JobError
from tests.llm.training import small

LINEAR = [0.5, 1, 1, 0.8875, 0.775, 0.6625, 0.55, 0.4375, 0.325, 0.2125]
COSINE = [1, 0.98776, 0.95225, 0.89695, 0.82725, 0.75, 0.67275, 0.60305, 0.54775, 0.51224]


@pytest.mark.parametrize(
    ("rate", "shares"),
    [
        (Rate(highest=1, schedule="linear", warmup=0.2, floor=0.1), LINEAR),
        (Rate(highest=1, schedule="cosine", warmup=0, floor=0.5), COSINE),
        (Rate(highest=1, schedule="constant", warmup=0.4), [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]),
        (Rate(highest=1, schedule="cosine", warmup=1), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
    ],
    ids=["linear", "cosine", "constant", "rise"],
)
def test_the_rate_rises_and_falls_by_shares_of_the_run(rate: Rate, shares: list[float]) -> None:
    assert [rate.share_at(step, steps=10) for step in range(10)] == pytest.approx(shares, abs=1e-5)


def test_a_run_of_one_step_learns() -> None:
    assert Rate(highest=1, warmup=0.03, floor=0).share_at(0, steps=1) == 1


@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw_8bit"])
def test_an_optimiser_for_gpus_is_refused_elsewhere(tmp_path: Path, name: str) -> None:
    recipe = small.recipe(optimizer=name)
    with pytest.raises(JobError, match=f"train.optimizer '{name}' needs a GPU, and this job runs on 'cpu'") as caught:
        arguments(recipe, steps=1, device="cpu", folder=tmp_path)
    assert caught.value.failure == "Infeasible"
    with pytest.raises(JobError, match=f"train.optimizer '{name}' needs the package bitsandbytes"):
        arguments(recipe, steps=1, device="cuda", folder=tmp_path)


def test_another_optimiser_goes_on_after_a_kill(tmp_path: Path) -> None:
    listed = small.steps(4)
    changed = {"optimizer": "adafactor", "every_steps": 2}
    unbroken, broken = small.model(), small.model()
    small.fit(tmp_path / "a", unbroken, listed, **changed)
    with pytest.raises(small.EndedError):
        small.fit(tmp_path / "b", small.model(), listed, heard=small.Heard(end_at=6), **changed)
    small.fit(tmp_path / "b", broken, listed, **changed)
    assert small.same(small.weights(unbroken), small.weights(broken))
