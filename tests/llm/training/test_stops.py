"""A run that learns nothing ends, with its class, its step and what to do."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from runner.llm.training.recipe import Rate
from runner.llm.training.stops import Stops
from runner.schema.errors import JobError
from tests.llm.training import small


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(tmp_path: Path) -> None:
    model = small.model()
    with torch.no_grad():
        model.lm_head.weight[5, 0] = float("nan")
    with pytest.raises(JobError, match=r"the loss became nan at step 1: lower .*, or look at the texts") as caught:
        small.fit(tmp_path, model, small.steps(2), every_steps=1)
    assert caught.value.failure == "NaN"
    assert not list(tmp_path.glob("step-*"))


def test_a_gradient_of_exactly_nothing_ends_the_run(tmp_path: Path) -> None:
    model = small.model()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    for name, one in model.named_parameters():
        one.requires_grad_("q_proj" in name)  # behind a head of zeros
    with pytest.raises(JobError, match=r"the gradient is exactly 0 at step 1, loss 3\.689") as caught:
        small.fit(tmp_path, model, small.steps(2))
    assert caught.value.failure == "NaN"


def test_a_step_whose_labels_are_all_masked_is_an_error_of_the_data(tmp_path: Path) -> None:
    listed = small.steps(3)
    masked = copy.deepcopy(listed.steps[1].batches[0])
    masked["labels"][:] = -100
    steps = [listed.steps[0], small.step(1, [masked]), listed.steps[2]]
    with pytest.raises(JobError, match="step 2 has nothing to learn: every label of its 3 documents") as caught:
        small.fit(tmp_path, small.model(), small.Listed(steps=steps))
    assert caught.value.failure == "DataInvalid"


def test_a_loss_that_runs_away_ends_the_run(tmp_path: Path) -> None:
    changed = {"rate": Rate(highest=1.0, schedule="constant", warmup=0.5), "clip_norm": 1e3, "optimizer": "adamw"}
    with pytest.raises(
        JobError, match=r"the loss runs away: \d+\.?\d* over the last 20 steps at step \d+, and"
    ) as caught:
        small.fit(tmp_path, small.model(), small.steps(100, rows=2, passes=1), accumulate=1, **changed)
    assert caught.value.failure == "NaN"


def test_what_was_before_a_kill_counts() -> None:
    calm = [{"loss": 1.0}] * 30
    stops = Stops(precision="bf16")
    stops.begin(calm)
    for step in range(31, 50):
        stops.check(step, loss=4.1, grad_norm=1.0)
    with pytest.raises(
        JobError, match=r"the loss runs away: 4\.1 over the last 20 steps at step 50, and 1 over 20 before"
    ):
        stops.check(50, loss=4.1, grad_norm=1.0)


def test_noise_and_a_spike_do_not_end_a_run() -> None:
    stops = Stops(precision="bf16")
    for step in range(1, 200):
        stops.check(step, loss=2.0 + (step * 7919 % 13) / 4 + 30.0 * (step == 100), grad_norm=1.0)


def test_fp16_may_overflow_but_not_for_ever() -> None:
    stops = Stops(precision="fp16")
    for step in range(1, 21):
        stops.check(step, loss=1.0, grad_norm=float("inf"))
    with pytest.raises(JobError, match="the gradient became inf at step 21, loss 1: lower"):
        stops.check(21, loss=1.0, grad_norm=float("inf"))
    with pytest.raises(JobError, match=r"the gradient became inf at step 1, loss 1: lower .*, or set precision"):
        Stops(precision="bf16").check(1, loss=1.0, grad_norm=float("inf"))


def test_a_gradient_that_has_learned_all_may_vanish() -> None:
    Stops(precision="bf16").check(4, loss=0.0, grad_norm=0.0)


def test_a_run_that_breaks_at_once_ends() -> None:
    """The losses of a small model at a learning rate of 1: no mean of 20 steps was low before."""
    stops = Stops(precision="fp32")
    with pytest.raises(JobError, match=r"the loss runs away: 34\.\d+ over .* at step 21, and 4\.7 at the first step"):
        for step, loss in enumerate([4.7, 25.5, 65.0, 30.9, 83.1, *[30.0] * 40], 1):
            stops.check(step, loss=loss, grad_norm=1.0)
