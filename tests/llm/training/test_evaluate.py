"""Measuring: exact over batches, the same with and without patches, no trace left, and the best weights at the end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runner.kernels import patching
from runner.llm.training import evaluate, samples
from runner.llm.training.evaluate import Examiner
from runner.llm.training.recipe import Rate
from runner.llm.training.samples import Prompt
from runner.schema.errors import JobError
from tests.llm.training import small
from tests.llm.training.small import EndedError, Heard


class Words:
    """A tokenizer of numbers."""

    eos_token_id = 2

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(text=text, ids=tuple(map(int, text.split()))) for text in texts]


def by_hand(model: Any, documents: list[Tensor]) -> float:
    """Mean loss of a target, one document at a time."""
    model.eval()
    with torch.no_grad():
        found = [
            nn.functional.cross_entropy(model(one[None]).logits[0, :-1], one[1:], reduction="sum") for one in documents
        ]
    model.train()
    return float(sum(found)) / sum(len(one) - 1 for one in documents)


@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral"])
@pytest.mark.parametrize("patches", [False, True], ids=["plain", "patched"])
def test_the_loss_is_that_of_each_target(family: str, patches: bool) -> None:
    model = small.model(family, dropout=0.5)
    if family == "mixtral":
        model.config.output_router_logits = True  # of the loss of training, not of what a token costs
    found = small.documents(7)
    listed = small.Listed(steps=[small.step(0, [small.padded(found[:1]), small.padded(found[1:])])])
    wanted = by_hand(model, found)
    if patches:
        patching.apply(model, {"linear_cross_entropy": "required", "attention": "required"})
    state = torch.random.get_rng_state()
    row = Examiner(listed).measure(model)
    assert row["validation_loss"] == pytest.approx(wanted, rel=1e-5)
    assert row["validation_perplexity"] == math.exp(row["validation_loss"])
    assert row["validation_targets"] == sum(len(one) - 1 for one in found)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(part.training for part in model.modules())


def test_a_patched_model_is_measured_without_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small.model()
    patching.apply(model, {"linear_cross_entropy": "required"})
    seen = []
    evaluate_share = evaluate.losses.share

    def share(*args: Any, **kwargs: Any) -> Any:
        loss, outputs = evaluate_share(*args, **kwargs)
        seen.append((outputs.get("logits"), [name for name, one in args[0].named_modules() if one.training]))
        return loss, outputs

    monkeypatch.setattr(evaluate.losses, "share", share)
    Examiner(small.steps(1)).measure(model)
    assert seen == [(None, [""])] * 2


def test_a_validation_set_without_targets_is_refused() -> None:
    listed = small.steps(1, passes=1)
    listed.steps[0].batches[0]["labels"][:] = -100
    with pytest.raises(JobError, match=r"data\.validation has nothing to measure") as caught:
        Examiner(listed).measure(small.model())
    assert caught.value.failure == "DataInvalid"


def test_answers_are_those_of_the_model_token_by_token() -> None:
    model = small.model().eval()
    asked = prompts("3 4 5", "9")
    (first, second) = samples.answers(model, asked, tokenizer=Words(), tokens=6)
    ids = [3, 4, 5]
    with torch.no_grad():
        while len(ids) < 9 and ids[-1] != 2:
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert [int(word) for word in first["answer"].split()] == [one for one in ids[3:] if one != 2]
    assert first["ended"] == (ids[-1] == 2)
    assert second["prompt"] == "9"


@pytest.mark.parametrize("family", ["gemma2", "mixtral"])
def test_a_patched_model_answers_in_the_middle_of_a_bf16_run(tmp_path: Path, family: str) -> None:
    """With a cache, through accelerate's autocast, and as it does without patches."""
    asked = prompts("3 4 5 6 7 8 9 10 11 12", "20")
    before = samples.answers(small.model(family).eval(), asked, tokenizer=Words(), tokens=5)
    model = small.model(family)
    applied = patching.apply(model, {"linear_cross_entropy": "required", "attention": "required"})
    examiner = Examiner(None, tokenizer=Words(), prompts=asked, tokens=5)
    changed = {"precision": "bf16", "every_steps": 1, "accumulate": 1, "rate": Rate(highest=1e-9)}
    done = small.fit(tmp_path, model, small.steps(1, passes=1), examiner=examiner, **changed)
    assert [row["step"] for row in done.history] == [0, 1]
    assert [row["prompt"] for row in done.history[1]["samples"]] == [one.text for one in asked]
    again = samples.answers(model.eval(), asked, tokenizer=Words(), tokens=5)
    assert again == before
    applied.undo()
    assert "forward" not in vars(model)


def test_the_best_weights_are_kept_even_over_a_kill(tmp_path: Path) -> None:
    """The rate is far too high: the loss is lowest in the middle, and comes back up."""
    listed, held = small.steps(12), small.steps(1, seed=9)
    changed = {"rate": Rate(highest=1.0, schedule="constant", warmup=1), "every_steps": 2, "clip_norm": 1e3}
    unbroken = small.model()
    done = small.fit(tmp_path / "a", unbroken, listed, examiner=Examiner(held), **changed)
    assert [row["step"] for row in done.history] == [0, 2, 4, 6, 8, 10, 12]
    lowest = min(done.history[1:], key=lambda row: row["validation_loss"])
    assert done.best == lowest["step"] not in (0, 12)
    assert Examiner(held).measure(unbroken)["validation_loss"] == lowest["validation_loss"]
    with pytest.raises(EndedError):
        small.fit(tmp_path / "b", small.model(), listed, examiner=Examiner(held), heard=Heard(end_at=22), **changed)
    broken = small.model()
    assert small.fit(tmp_path / "b", broken, listed, examiner=Examiner(held), **changed) == done
    assert small.same(small.weights(broken), small.weights(unbroken))


def test_a_run_without_a_better_model_stops_early(tmp_path: Path) -> None:
    listed, held, heard = small.steps(12), small.steps(1, seed=9), Heard()
    changed = {
        "rate": Rate(highest=1.0, schedule="constant", warmup=1),
        "every_steps": 2,
        "patience": 2,
        "clip_norm": 1e3,
    }
    done = small.fit(tmp_path, small.model(), listed, examiner=Examiner(held), heard=heard, **changed)
    assert done.stopped
    assert done.why == "no lower validation loss in 2 measurements"
    assert done.best is not None and done.steps == done.best + 4
    again = small.fit(tmp_path, small.model(), listed, examiner=Examiner(held), **changed)
    assert again == done


def test_what_is_measured_is_told(tmp_path: Path) -> None:
    heard, listed = Heard(), small.steps(4)
    asked = prompts("3 4 5")
    examiner = Examiner(small.steps(1, seed=9), tokenizer=Words(), prompts=asked, tokens=3)
    done = small.fit(tmp_path, small.model(), listed, examiner=examiner, heard=heard, every_steps=2)
    names = {name for name, _ in heard.metrics}
    assert names >= {"loss", "grad_norm", "learning_rate", "tokens", "tokens_per_s", "memory_gb", "packing_efficiency"}
    assert names >= {"validation_loss", "validation_perplexity"}
    assert heard.lines[0].startswith("step 0 of 4, validation loss 3.")
    assert heard.lines[1].startswith("asked '3 4 5', it answers '")
    assert [row["step"] for row in samples.rows(done.history)] == [0, 2, 4]
    assert heard.progress[-1][:2] == (4, 4)
