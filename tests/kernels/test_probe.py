"""The probe before training: right patches pass with figures, wrong ones are taken out or stop it."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch

from runner.kernels.forwards import norms
from runner.kernels.lora import registered
from runner.kernels.patching import PatchError, apply
from runner.kernels.probe import Tried, _saving, contamination, probe
from runner.kernels.quantised import quantise_linears
from tests.kernels.patches.training import batch, loss_of, model, wanted
from tests.registry import tiny_llm


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "granite", "qwen2-5-vl"])
def test_right_patches_get_error_and_saving(name: str) -> None:
    made, fields = model(name), batch(name, 1)
    before = loss_of(made, fields).item()
    applied = apply(made, wanted(name), with_triton=False)
    probed = probe(made, applied, fields)
    assert probed.loss == before
    assert probed.patched_loss == pytest.approx(before, rel=1e-5)
    assert probed.gradient_norm > 0
    assert " for " in applied.ledger.of("attention")[0].why  # what was chosen, and for which call
    for line in applied.ledger.lines:
        assert line.applied, line
        assert line.parity_error is not None, line
        assert line.parity_error < 1e-4
        assert line.saving is not None
        assert line.saving.endswith(" ms a step")
    assert all(x.grad is None for x in made.parameters())
    assert all(part.training for part in made.modules())
    applied.undo()
    assert loss_of(made, fields).item() == before


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_adapters_are_probed_too() -> None:
    config = peft.LoraConfig(target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    made = peft.get_peft_model(model("llama"), config).train()
    applied = apply(made, {"lora_linear": "required", "swiglu": "required"}, with_triton=False)
    probe(made, applied, batch("llama", 1))
    assert [line.applied for line in applied.ledger.lines] == [True, True]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantised_weights_are_held_to_what_they_stand_for() -> None:
    made = tiny_llm.model("llama", hidden_size=64, intermediate_size=128).train()
    quantise_linears(made, "int4", skip=("lm_head",))
    config = peft.LoraConfig(target_modules=["q_proj", "gate_proj", "up_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(made, registered(config)).train()
    names = (*wanted("llama"), "lora_linear")
    applied = apply(adapted, dict.fromkeys(names, "required"), with_triton=False)
    probe(adapted, applied, batch("llama", 1))
    assert {line.what for line in applied.ledger.lines if line.applied} == set(names)


def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """RMS norms whose result is off by a thousandth."""
    own = norms.rms_norm
    monkeypatch.setattr(norms, "must_agree", lambda *_: None)
    monkeypatch.setattr(norms, "rms_norm", lambda *args, **options: own(*args, **options) * 1.001)


def test_a_wrong_patch_that_is_preferred_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong(monkeypatch)
    made = model("llama")
    applied = apply(made, {"rms_norm": "preferred", "swiglu": "required"}, with_triton=False)
    probe(made, applied, batch("llama", 1))
    first, second = applied.ledger.lines
    assert not first.applied
    assert first.why.startswith("taken out by the probe: its error on 'model.layers.0.input_layernorm' is 1.0e-03")
    assert second.applied
    assert list(applied.found) == ["swiglu"]
    assert not [path for path, part in made.named_modules() if "forward" in part.__dict__ and "norm" in path]


def test_a_wrong_patch_that_is_required_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong(monkeypatch)
    made = model("llama")
    applied = apply(made, {"rms_norm": "required", "swiglu": "required"}, with_triton=False)
    with pytest.raises(PatchError, match="rms_norm is required and not right on this device: its error on 'model"):
        probe(made, applied, batch("llama", 1))
    assert not [path for path, part in made.named_modules() if "forward" in part.__dict__]


@pytest.mark.parametrize("word", ["preferred", "required"])
def test_a_patch_that_raises_where_it_is_tried(word: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of resource: shared memory")

    made, why = model("llama"), "it cannot be tried on 'model.layers.0.input_layernorm': RuntimeError: out of resource"
    applied = apply(made, {"rms_norm": word, "swiglu": "required"}, with_triton=False)
    monkeypatch.setattr(norms, "rms_norm", raising)
    if word == "required":
        with pytest.raises(PatchError, match=f"rms_norm is required and not right on this device: {why}"):
            probe(made, applied, batch("llama", 1))
        assert not [path for path, part in made.named_modules() if "forward" in part.__dict__]
        return
    probe(made, applied, batch("llama", 1))
    assert [line.applied for line in applied.ledger.lines] == [False, True]
    assert applied.ledger.lines[0].why.startswith(f"taken out by the probe: {why}")
    assert list(applied.found) == ["swiglu"]


def test_a_place_of_each_kind_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    own, made = norms.rms_norm, model("llama")
    last = made.model.norm.weight
    applied = apply(made, {"rms_norm": "preferred"}, with_triton=False)
    monkeypatch.setattr(norms, "must_agree", lambda *_: None)
    off = lambda x, weight, *more, **rest: own(x, weight, *more, **rest) * (1.001 if weight is last else 1.0)  # noqa: E731
    monkeypatch.setattr(norms, "rms_norm", off)
    probe(made, applied, batch("llama", 1))
    assert "its error on 'model.norm' is 1.0e-03" in applied.ledger.lines[0].why


def test_savings_are_those_of_all_places() -> None:
    fields: dict[str, Any] = {"path": "", "errors": (0.0, 0.0), "limit": 0.0}
    norms_of_layers = Tried(alike=10, seconds=(0.003, 0.002), bytes=(3 << 20, 1 << 20), **fields)
    last = Tried(alike=1, seconds=(0.001, 0.002), bytes=(5 << 20, 2 << 20), **fields)
    assert _saving([norms_of_layers, last]) == "+9.0 ms of 31.0 ms a step, +3.0 MiB at a time"


def test_places_that_the_batch_does_not_reach_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model("llama")
    applied = apply(made, {"rms_norm": "preferred", "swiglu": "required"}, with_triton=False)
    first, second = applied.ledger.lines
    made.tower = model("llama").model.norm  # no step goes through it
    applied.ledger.change(first, places=("tower",))
    applied.ledger.change(second, places=("tower", *second.places))
    probe(made, applied, batch("llama", 1))
    first, second = applied.ledger.lines
    assert first.why == "taken out by the probe: the batch reaches none of its places, such as 'tower'"
    assert second.applied
    assert second.saving is not None


def test_what_gives_no_loss_is_named() -> None:
    made: Any = model("llama")
    fields = batch("llama", 1)
    without = {key: x for key, x in fields.items() if key != "labels"}
    with pytest.raises(PatchError, match=r"LlamaForCausalLM gives no loss, .* needs: the batch has no labels"):
        probe(made, apply(made, {"swiglu": "required"}, with_triton=False), without)
    base: Any = model("modernbert")
    with pytest.raises(PatchError, match=r"ModernBertModel gives no loss, .* needs: take one with a head"):
        probe(base, apply(base, {"layer_norm": "required"}, with_triton=False), fields)


def test_nothing_to_learn_stops_it() -> None:
    made, fields = model("llama"), batch("llama", 1)
    with torch.no_grad():
        made.model.norm.weight.zero_()
        made.lm_head.weight.zero_()
    with pytest.raises(PatchError, match=r"Nothing would be learned: the loss is 3.6.*, the norm of its gradients 0.0"):
        probe(made, apply(made, {"swiglu": "required"}, with_triton=False), fields)


def packed(lengths: tuple[int, ...]) -> dict[str, Any]:
    ids = torch.randint(3, 40, (1, sum(lengths)))
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    return {"input_ids": ids, "labels": ids.clone(), "position_ids": positions, "use_cache": False}


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3"])
def test_documents_do_not_see_each_other(name: str) -> None:
    made = model(name)
    rows = packed((5, 1, 7, 4))
    contamination(made, rows, documents=4)
    applied = apply(made, wanted(name), with_triton=False)
    contamination(made, rows)
    applied.undo()


def test_documents_that_see_each_other_are_named() -> None:
    made: Any = model("llama")
    rows = packed((5, 7))
    with pytest.raises(PatchError, match=r"the loss of 1 depends on the tokens of \[0\]. Turn packing off"):
        contamination(made, rows | {"use_cache": True})


def test_patches_can_be_taken_out_for_a_while() -> None:
    made = model("llama")
    applied = apply(made, wanted("llama"), with_triton=False)
    held = [dict(part.__dict__) for part in made.modules()]
    with applied.suspended():
        assert not [path for path, part in made.named_modules() if "forward" in part.__dict__]
        assert made.config._attn_implementation == "sdpa"
        with applied.only("swiglu"):
            assert {path for path, part in made.named_modules() if "forward" in part.__dict__} == {
                f"model.layers.{number}.mlp" for number in range(2)
            }
    assert [list(part.__dict__) for part in made.modules()] == [list(one) for one in held]


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe", "deepseek-v2", "deepseek-v3", "gpt-oss"])
def test_experts_are_held_against_a_truth_that_torch_can_compute(name: str) -> None:
    made, fields = model(name), batch(name, 1)
    applied = apply(made, {"experts": "required"}, with_triton=False)
    probe(made, applied, fields)
    (line,) = applied.ledger.of("experts")
    assert line.applied
    assert line.parity_error is not None
    assert made.config._experts_implementation == "grouped_mm"
