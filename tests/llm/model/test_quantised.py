"""Quantised bases: rounded while they load, trained beside, and what is kept of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from runner.kernels.quantised import QuantisedLinear, quantise_linears
from runner.llm.model import keep
from runner.llm.model.prepared import Adapter
from runner.schema.errors import JobError
from tests.llm.model import made
from tests.llm.model.test_begin import again, step

CASES = [
    ("llama", "nf4"),
    ("qwen2", "int4"),
    ("deepseek-v3", "int8"),
    ("mixtral", "fp8"),
    ("gemma3-vision", "fp8_block"),
    ("qwen2-5-vl", "nf4"),
]


def rounded(base: Path, family: str, form: str) -> Any:
    """The plain model, its layers quantised after it was loaded."""
    model = again(base, family)
    quantise_linears(model, form)
    return model


@pytest.mark.parametrize(("family", "form"), CASES)
def test_loading_rounds_as_rounding_afterwards_does(family: str, form: str, tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", family)
    loaded = made.prepared(base, quantize=form, adapter=Adapter(type="lora", r=2), optimize=made.OFF)
    model = loaded.model.get_base_model()
    expected = rounded(base, family, form)
    found = {name.replace(".base_layer", ""): one for name, one in model.state_dict().items() if "lora_" not in name}
    assert found.keys() == expected.state_dict().keys()
    for name, one in expected.state_dict().items():
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), one.reshape(-1).view(torch.uint8)), name
    assert not hasattr(loaded.config, "quantization_config")


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("form", ["none", "nf4"])
def test_every_kind_of_adapter_trains_and_loads_again(kind: Any, form: str, tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", "qwen3")
    prepared = made.prepared(base, quantize=form, adapter=Adapter(type=kind, r=4, alpha=6, dropout=0.0))
    assert step(prepared) > step(prepared)
    folder = keep.save(prepared, tmp_path)
    plain = again(base, "qwen3")
    if form != "none":  # what base.json tells people to do
        layers = [
            name for name, part in rounded(base, "qwen3", form).named_modules() if isinstance(part, QuantisedLinear)
        ]
        quantised = rounded(base, "qwen3", form)
        for name in layers:
            plain.get_submodule(name).weight.data = quantised.get_submodule(name).weight.dequantise()
    loaded = PeftModel.from_pretrained(plain, folder).eval()
    ids = made.packed(9)["input_ids"]
    prepared.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, prepared.model(ids).logits, rtol=1e-4, atol=1e-5)
    about = json.loads((folder / "base.json").read_text())
    assert about["merge_base"] == ("full" if form == "none" else "dequantised")
    assert about["quantize"] == form


def test_what_is_trained_is_fp32_and_what_is_frozen_is_not(tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", "llama")
    given = {"adapter": Adapter(type="dora", r=2, modules_to_save=("lm_head",)), "precision": made.BF16}
    prepared = made.prepared(base, **given, quantize="nf4", optimize=made.OFF)
    kinds = {(one.requires_grad, one.dtype) for one in prepared.model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    with torch.autocast("cpu", torch.bfloat16):
        prepared.model(**made.packed(7, 5)).loss.backward()
    assert all(one.grad is not None for one in prepared.model.parameters() if one.requires_grad)


def test_weights_that_are_quantised_already_are_not_rounded_again(tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", "llama")
    said = json.loads((base / "config.json").read_text()) | {"quantization_config": {"quant_method": "fp8"}}
    (base / "config.json").write_text(json.dumps(said))
    with pytest.raises(JobError, match="quantised to 'fp8' already"):
        made.prepared(base, quantize="nf4", adapter=Adapter(type="lora", r=2))


def test_a_quantised_module_is_not_saved_whole(tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", "llama")
    with pytest.raises(JobError, match="'mlp' is quantised"):
        made.prepared(base, quantize="nf4", adapter=Adapter(type="lora", r=2, modules_to_save=("mlp",)))
