"""Training: it goes on after a kill as if nothing had been, in every format and size of batch, and stops on NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from runner.asr.training import loop
from runner.asr.training.corpus import Corpus
from runner.asr.training.recipe import Augmentation, Lora, Masks, Rate
from runner.schema.errors import JobError
from tests.asr.training import small
from tests.asr.training.small import EndedError, Heard

PLAIN = Augmentation()
MASKS = Masks(time=0.2, time_frames=5, feature=0.1, feature_width=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Corpus]:
    folder = tmp_path_factory.mktemp("tones")
    return small.read(folder, "train", 40, seed=1), small.read(folder, "validation", 6, seed=2)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("lora", [None, Lora(r=2, alpha=4, dropout=0.1)], ids=["full", "lora"])
def test_a_run_that_was_ended_goes_on_to_the_same_weights(
    tmp_path: Path, data: tuple[Corpus, Corpus], lora: Lora | None
) -> None:
    unbroken = small.begin(masks=MASKS)
    whole = small.fit(tmp_path / "a", unbroken, *data, lora=lora)
    for end_at in (6, 11):  # after the first and after the second checkpoint
        with pytest.raises(EndedError):
            small.fit(tmp_path / "b", small.begin(masks=MASKS), *data, lora=lora, heard=Heard(end_at=end_at))
    torch.manual_seed(999)  # a new process has other numbers to come
    np.random.seed(999)
    broken, heard = small.begin(masks=MASKS), Heard()
    done = small.fit(tmp_path / "b", broken, *data, lora=lora, heard=heard)
    assert done == whole
    assert heard.lines[0] == "goes on after step 8 of 12"
    assert same(weights(broken.model), weights(unbroken.model))


def test_what_is_over_is_not_trained_again(tmp_path: Path, data: tuple[Corpus, Corpus]) -> None:
    first, second, heard = small.begin(), small.begin(), Heard()
    done = small.fit(tmp_path, first, *data)
    assert small.fit(tmp_path, second, *data, heard=heard) == done
    assert heard.lines == []
    assert same(weights(first.model), weights(second.model))


def test_accumulated_batches_are_one_larger_batch(tmp_path: Path, data: tuple[Corpus, Corpus]) -> None:
    """Batches of 5 clips, two to a step, against batches of 10: the order of clips is that of their length."""
    plain = {"augmentation": PLAIN, "shortest_first": True, "steps": 4, "seconds": 600.0, "every_steps": 2}
    large, halves = small.begin(dropout=0.0), small.begin(dropout=0.0)
    one = small.fit(tmp_path / "a", large, *data, clips=10, **plain)
    two = small.fit(tmp_path / "b", halves, *data, clips=5, accumulate=2, **plain)
    for a, b in zip(one.history, two.history, strict=True):
        assert b == pytest.approx(a, rel=2e-3)
    before, after = weights(large.model), weights(halves.model)
    assert all(torch.allclose(before[name], after[name], atol=2e-3) for name in before)


def test_batches_of_unlike_size_count_by_their_clips(tmp_path: Path, data: tuple[Corpus, Corpus]) -> None:
    """8 and 2 clips make the step that 10 make: the Trainer's own mean of means would not."""
    corpus = Corpus(utterances=data[0].utterances[:10], rate=data[0].rate)
    plain = {"augmentation": PLAIN, "shortest_first": True, "steps": 1, "seconds": 600.0}
    large, parts = small.begin(dropout=0.0), small.begin(dropout=0.0)
    one = small.fit(tmp_path / "a", large, corpus, data[1], clips=10, **plain)
    two = small.fit(tmp_path / "b", parts, corpus, data[1], clips=8, accumulate=2, **plain)
    assert two.history[0]["loss"] == pytest.approx(one.history[0]["loss"], rel=1e-5)
    assert two.history[0]["grad_norm"] == pytest.approx(one.history[0]["grad_norm"], rel=1e-4)


def test_recomputed_activations_change_no_bit(tmp_path: Path, data: tuple[Corpus, Corpus]) -> None:
    plain, saved = small.begin(masks=MASKS), small.begin(masks=MASKS)
    small.fit(tmp_path / "a", plain, *data, steps=4)
    small.fit(tmp_path / "b", saved, *data, steps=4, checkpointing=True)
    assert (plain.model.is_gradient_checkpointing, saved.model.is_gradient_checkpointing) == (False, True)
    assert same(weights(plain.model), weights(saved.model))


def test_recomputed_activations_reach_what_stands_beside_a_frozen_encoder(
    tmp_path: Path, data: tuple[Corpus, Corpus]
) -> None:
    plain, saved = small.begin(), small.begin()
    beside = {"lora": Lora(r=2, alpha=4, dropout=0.0), "freeze": True, "steps": 2}
    small.fit(tmp_path / "a", plain, *data, **beside)
    small.fit(tmp_path / "b", saved, *data, checkpointing=True, **beside)
    begun = small.begin()
    assert not same(weights(begun.model), weights(plain.model))
    assert same(weights(plain.model), weights(saved.model))


def test_bf16_trains_near_fp32_and_is_measured_in_fp32(tmp_path: Path, data: tuple[Corpus, Corpus]) -> None:
    exact, rough = small.begin(dropout=0.0), small.begin(dropout=0.0)
    one = small.fit(tmp_path / "a", exact, *data, steps=4)
    two = small.fit(tmp_path / "b", rough, *data, steps=4, precision="bf16")
    assert two.history[0]["loss"] == pytest.approx(one.history[0]["loss"], rel=0.05)
    assert two.history[0]["loss"] != one.history[0]["loss"]
    assert all(weight.dtype == torch.float32 for weight in rough.model.parameters())
    measured = rough.examiner(data[1], check=lambda: None).evaluate(rough.model, rough.spelling)
    assert measured.loss == two.history[-1]["validation_loss"]


def test_a_loss_that_is_no_number_stops_the_run_with_its_class(tmp_path: Path, data: tuple[Corpus, Corpus]) -> None:
    learner = small.begin()
    with torch.no_grad():
        learner.model.lm_head.weight[3] = float("nan")
    with pytest.raises(JobError, match=r"the loss became nan at step 1: lower train.learning_rate") as caught:
        small.fit(tmp_path, learner, *data)
    assert caught.value.failure == "NaN"


def test_fp16_may_overflow_now_and_then_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The norms are made up: a CPU has no scaler."""
    norms = [math.inf] * loop.OVERFLOWS + [1.0] + [math.inf] * (loop.OVERFLOWS + 1)
    monkeypatch.setattr(loop.Trainer, "_clip_grad_norm", lambda *_: norms.pop(0))
    trainer = loop.CtcTrainer.__new__(loop.CtcTrainer)
    vars(trainer).update(_norm=0.0, _overflows=0, args=SimpleNamespace(fp16=True), state=SimpleNamespace(global_step=6))
    for _ in range(2 * loop.OVERFLOWS + 1):
        trainer._clip_grad_norm(None)
    with pytest.raises(JobError, match="the gradient became inf at step 7"):
        trainer._clip_grad_norm(None)


def test_a_gradient_that_is_no_number_stops_the_run(tmp_path: Path, data: tuple[Corpus, Corpus]) -> None:
    learner = small.begin()
    learner.model.lm_head.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(JobError, match="the gradient became") as caught:
        small.fit(tmp_path, learner, *data)
    assert caught.value.failure == "NaN"


def test_patience_ends_a_run_that_gets_no_better(tmp_path: Path, data: tuple[Corpus, Corpus]) -> None:
    """With a rate of next to nothing the loss falls by little and the error rates not at all."""
    rate = Rate(highest=1e-9, warmup=0.0, hold=1.0, decay="linear", floor=0.0)
    learner = small.begin(dropout=0.0)
    with torch.no_grad():
        learner.model.lm_head.bias[0] += 10  # blanks throughout, and a loss that does not move
    done = small.fit(tmp_path, learner, *data, rate=rate, steps=100, every_steps=2, patience=2)
    assert done.stopped_early
    assert (done.steps, done.planned) == (done.best + 4, 100)


def test_only_the_best_and_the_last_checkpoint_are_kept(tmp_path: Path, data: tuple[Corpus, Corpus]) -> None:
    done = small.fit(tmp_path, small.begin(), *data)
    kept = {path.name for path in tmp_path.iterdir() if path.name.startswith("step-")}
    assert kept == {f"step-{done.best}", "step-12"}


def test_every_measurement_is_told(tmp_path: Path, data: tuple[Corpus, Corpus]) -> None:
    heard = Heard()
    done = small.fit(tmp_path, small.begin(), *data, heard=heard)
    names = ["loss", "grad_norm", "learning_rate", "validation_loss", "blank_ratio", "wer", "cer"]
    assert [name for name, _ in heard.metrics] == names * len(done.history)
    assert dict(heard.metrics[-len(names) :]) == {name: done.history[-1][name] for name in names}
    assert json.loads(json.dumps(done.history)) == done.history
    assert [row["step"] for row in done.history] == [4, 8, 12]


def test_the_rate_rises_holds_and_falls() -> None:
    linear = Rate(highest=1.0, warmup=0.1, hold=0.4, decay="linear", floor=0.02)
    shares = [linear.share_at(step, steps=100) for step in range(101)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9:50] == [1.0] * 41
    assert shares[75] == pytest.approx(0.51)
    assert shares[100] == pytest.approx(0.02)
    cosine = Rate(highest=1.0, warmup=0.0, hold=0.0, decay="cosine", floor=0.0)
    assert [cosine.share_at(step, steps=4) for step in (0, 2, 4)] == pytest.approx([1.0, 0.5, 0.0])
    flat = Rate(highest=1.0, warmup=0.0, hold=1.0, decay="linear", floor=0.0)
    assert flat.share_at(100, steps=100) == 1.0


@pytest.mark.parametrize(
    "changed",
    [
        {"clip_norm": 1e-3},
        {"weight_decay": 1.0},
        {"betas": (0.5, 0.5)},
        {"rate": Rate(highest=1e-2, warmup=0.0, hold=1.0, decay="linear", floor=0.0)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_the_optimiser_is_told_of_its_settings(
    tmp_path: Path, data: tuple[Corpus, Corpus], changed: dict[str, Any]
) -> None:
    plain, other = small.begin(), small.begin()
    small.fit(tmp_path / "a", plain, *data, steps=3)
    small.fit(tmp_path / "b", other, *data, steps=3, **changed)
    assert not same(weights(plain.model), weights(other.model))
