"""Training: sums over tokens are exact, a kill loses nothing, and the Trainer's own numbers come out."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open

from runner.kernels import patching
from runner.llm.packing import batch
from runner.llm.training import peak
from tests.llm.training import small
from tests.llm.training.small import EndedError, Heard


def lora(model: Any) -> Any:
    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(r=2, lora_alpha=4, lora_dropout=0.1, target_modules=["q_proj", "v_proj"]))


def begun(kind: str) -> Any:
    return lora(small.model()) if kind == "lora" else small.model(dropout=0.1)


@pytest.mark.parametrize("kind", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_run_that_was_killed_goes_on_to_the_same_weights(tmp_path: Path, kind: str) -> None:
    listed = small.steps(10)
    unbroken = begun(kind)
    whole = small.fit(tmp_path / "a", unbroken, listed)
    for end_at in (11, 10):  # calls of check, two a step: after the first checkpoint, then after the second
        with pytest.raises(EndedError):
            small.fit(tmp_path / "b", begun(kind), listed, heard=Heard(end_at=end_at))
    torch.manual_seed(999)  # a new process has other numbers to come
    broken, heard = begun(kind), Heard()
    done = small.fit(tmp_path / "b", broken, listed, heard=heard)
    assert heard.lines[0] == "goes on after step 8 of 10"
    assert done == whole
    assert small.same(small.weights(broken), small.weights(unbroken))
    assert small.journal(tmp_path / "a") == small.journal(tmp_path / "b")
    assert [row["step"] for row in small.journal(tmp_path / "a")] == list(range(1, 11))


def test_what_is_over_is_not_trained_again(tmp_path: Path) -> None:
    listed = small.steps(4)
    first, second = small.model(), small.model()
    done = small.fit(tmp_path, first, listed)
    heard = Heard()
    assert small.fit(tmp_path, second, listed, heard=heard) == done
    assert not heard.metrics
    assert small.same(small.weights(first), small.weights(second))


def test_only_what_is_trained_is_in_a_checkpoint(tmp_path: Path) -> None:
    trained = lora(small.model())
    small.fit(tmp_path, trained, small.steps(2))
    names = {name for name, one in trained.named_parameters() if one.requires_grad}
    with safe_open(tmp_path / "step-2" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == names


def test_batches_of_unlike_size_weigh_their_tokens(tmp_path: Path) -> None:
    """A step of three batches of 1, 2 and 5 documents learns what one batch of 8 does; so does a shorter last step."""
    found = small.documents(8)
    one = small.Listed(steps=[small.step(n, [small.padded(found)]) for n in range(3)])
    parts = [small.padded(found[:1]), small.padded(found[1:3]), small.padded(found[3:])]
    split = [
        small.step(0, parts),
        small.step(1, parts),
        small.step(2, [small.padded(found[:5]), small.padded(found[5:])]),
    ]
    large, many = small.model(), small.model()
    small.fit(tmp_path / "a", large, one, accumulate=1)
    small.fit(tmp_path / "b", many, small.Listed(steps=split), accumulate=3)
    for a, b in zip(small.journal(tmp_path / "a"), small.journal(tmp_path / "b"), strict=True):
        assert b == pytest.approx(a, rel=1e-5)
    for name, value in small.weights(large).items():
        assert torch.allclose(value, small.weights(many)[name], atol=1e-5), name


def test_a_model_that_only_gives_a_mean_weighs_tokens_too(tmp_path: Path) -> None:
    listed = small.steps(3)
    empty = copy.deepcopy(listed.steps[1].batches[1])
    empty["labels"][:] = -100
    listed = small.Listed(steps=[listed.steps[0], small.step(1, [listed.steps[1].batches[0], empty]), listed.steps[2]])
    usual, mean = small.model(), small.model()
    mean.accepts_loss_kwargs = False
    small.fit(tmp_path / "a", usual, listed)
    small.fit(tmp_path / "b", mean, listed)
    for name, value in small.weights(usual).items():
        assert torch.allclose(value, small.weights(mean)[name], atol=1e-5), name


def test_a_packed_patched_adapter_learns_what_a_plain_padded_one_does(tmp_path: Path) -> None:
    """Also in bf16, where accelerate puts its autocast around the patched forward; all comes off again."""
    packs, pads = [], []
    for number in range(3):
        found = [one.numpy().astype("int32") for one in small.documents(5, seed=number)]
        whole = small.step(number, [batch.padded(found, pad_id=0)])
        pads.append(whole)
        packs.append(dataclasses.replace(whole, batches=(batch.packed(found),), computed=whole.tokens))
    plain, ours = lora(small.model()).eval(), lora(small.model()).eval()
    for model in (plain, ours):
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
    before = set(vars(ours.base_model.model))
    wanted = dict.fromkeys(("linear_cross_entropy", "attention", "lora_linear"), "required")
    applied = patching.apply(ours, wanted)
    small.fit(tmp_path / "a", plain, small.Listed(steps=pads), accumulate=1, optimizer="sgd")
    small.fit(tmp_path / "b", ours, small.Listed(steps=packs), accumulate=1, optimizer="sgd")
    for a, b in zip(small.journal(tmp_path / "a"), small.journal(tmp_path / "b"), strict=True):
        assert b == pytest.approx(a, rel=1e-5)
    done = small.fit(tmp_path / "c", ours, small.Listed(steps=packs), accumulate=1, precision="bf16")
    assert done.steps == 3
    applied.undo()
    assert set(vars(ours.base_model.model)) == before
    assert not [name for name, part in ours.named_modules() if "forward" in vars(part)]


def test_speed_is_told_of_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, heard = small.steps(3), Heard()
    rate = dataclasses.replace(peak.measure("cpu", "fp32"), rate=5e9)
    monkeypatch.setattr(peak, "measure", lambda *_: rate)
    small.fit(tmp_path, small.model(), listed, heard=heard, flops=6e4)
    rows = small.journal(tmp_path, "speed.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row, step in zip(rows, listed.steps, strict=True):
        assert row["tokens_per_s"] == step.tokens / row["seconds"]
        assert row["packing_efficiency"] == step.tokens / step.computed < 1
        assert row["mfu"] == pytest.approx(6e4 * row["tokens_per_s"] / 5e9)
        assert 0.05 < row["memory_gb"] < 100
    assert re.fullmatch(r"MFU is a share of [\d.]+ TFLOP/s, measured on this \w+ CPU, 1 thread", heard.lines[0])
    losses = [row["loss"] for row in small.journal(tmp_path)]
    assert heard.progress[1] == (2, 3, f"steps, loss {losses[1]:.3f}, 0 s left")
    assert heard.progress[2] == (3, 3, f"steps, loss {losses[2]:.3f}")
