"""Every family with its patches against itself without: loss, gradients, training; nothing leaks, undo is whole."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from peft.tuners.lora import LoraLayer

from runner.kernels.families import families_of, known
from runner.kernels.patching import FORWARDS, apply, patched
from runner.registry.language import PATCHES
from runner.registry.recognise import families
from runner.schema import discover
from tests.kernels.patches.training import NAMES, batch, loss_of, losses, model, must_agree, smaller, twins, wanted

SLOW_STEPS = ("llama", "qwen3", "gemma2")


def test_names_and_families_are_those_of_the_registry() -> None:
    assert set(FORWARDS) == set(PATCHES)
    stems = {stem.replace("-", "_") for stem in discover.names("runner.registry.families")}
    assert set(known()) == stems & {name.replace("-", "_") for name in NAMES}
    assert len(known()) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_registry_wants_has_places(name: str) -> None:
    made = model(name)
    without = {patch: why for _, _, family in families_of(made) for patch, why in family.without.items()}
    with patched(made, wanted(name, "preferred"), with_triton=False) as ledger:
        for line in ledger.lines:
            assert line.applied or without.get(line.what) == line.why, line
            assert len(line.places) == len(set(line.places))
            assert all(made.get_submodule(path) for path in line.places)


@pytest.mark.parametrize("name", NAMES)
def test_patched_and_unpatched_agree_and_nothing_leaks(name: str) -> None:
    ours, theirs = twins(name)
    third = type(ours)(ours.config).train()
    before = [set(part.__dict__) for part in (*theirs.modules(), *third.modules())]
    with patched(ours, wanted(name, "preferred"), with_triton=False):
        must_agree(ours, theirs, batch(name, seed=1))
        assert before == [set(part.__dict__) for part in (*theirs.modules(), *third.modules())]
        assert losses(ours, name, steps=20) == pytest.approx(losses(theirs, name, steps=20), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_with_triton_a_step_agrees(name: str, device: str) -> None:
    ours, theirs = twins(name, device, **smaller(name))
    with patched(ours, wanted(name, "preferred"), with_triton=True):
        must_agree(ours, theirs, batch(name, 1, device), tolerance=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_STEPS)
def test_with_triton_training_agrees(name: str, device: str) -> None:
    ours, theirs = twins(name, device)
    with patched(ours, wanted(name), with_triton=True):
        assert losses(ours, name, 20, device) == pytest.approx(losses(theirs, name, 20, device), rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_undo_gives_the_same_bits_and_leaves_nothing(name: str) -> None:
    made, fields = model(name), batch(name, seed=2)
    kept = [dict(part.__dict__) for part in made.modules()]
    before = loss_of(made, fields)
    applied = apply(made, wanted(name, "preferred"), with_triton=False)
    assert any(line.applied for line in applied.ledger.lines)
    loss_of(made, fields)
    applied.undo()
    assert torch.equal(loss_of(made, fields), before)
    now = [dict(part.__dict__) for part in made.modules()]
    assert [list(one) for one in now] == [list(one) for one in kept]
    assert all(_same(one[key], other[key]) for one, other in zip(now, kept, strict=True) for key in one)


def _same(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, (int, float, str)) and one == other)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_adapters_of_peft_are_trained_alike(name: str) -> None:
    language = families()[name].language
    assert language is not None
    config = peft.LoraConfig(r=4, target_modules=list(language.lora), init_lora_weights=False)
    pair = []
    for made in twins(name):
        torch.manual_seed(1)
        pair.append(peft.get_peft_model(made, config).train())
    with patched(pair[0], wanted(name, "preferred") | {"lora_linear": "required"}, with_triton=False) as ledger:
        assert len(ledger.of("lora_linear")[0].places) == sum(isinstance(x, LoraLayer) for x in pair[0].modules())
        must_agree(*pair, batch(name, seed=3))
