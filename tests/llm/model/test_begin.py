"""Models of every family made ready, trained a step, saved, and loaded again by plain transformers and PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from runner.llm.model import keep
from runner.llm.model.prepared import Adapter, Base, Prepared
from runner.registry.parameters import of_images
from tests.llm.model import made

LORA = Adapter(type="lora", r=4)


def step(prepared: Prepared, rate: float = 0.1) -> float:
    """One step of SGD on a packed row; the loss before it."""
    loss = prepared.model(**made.packed(7, 12, 5)).loss
    loss.backward()
    with torch.no_grad():
        for one in prepared.model.parameters():
            if one.grad is not None:
                one.sub_(rate * one.grad)
                one.grad = None
    return float(loss.detach())


def said(model: Any) -> dict[str, Any]:
    return {key: value for key, value in model.config.to_dict().items() if key != "_name_or_path"}


def outputs(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=made.packed(9)["input_ids"]).logits
        return logits


def again(folder: Path, family: str) -> Any:
    auto = AutoModelForImageTextToText if family in made.IMAGES else AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("family", [*made.CAUSAL, *made.IMAGES])
def test_a_whole_model_trains_and_loads_again(family: str, tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", family)
    prepared = made.prepared(base)
    assert step(prepared) > step(prepared)
    folder = keep.save(prepared, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    model = again(folder, family)
    torch.testing.assert_close(outputs(model), outputs(prepared.model), rtol=1e-5, atol=1e-5)
    before = again(base, family)
    assert said(model) == said(before)
    for name, one in before.named_parameters():
        assert torch.equal(one, model.get_parameter(name)) == of_images(name), name


@pytest.mark.parametrize("family", ["llama", "phi3", "mixtral", "deepseek-v3", "gpt-oss", *made.IMAGES])
def test_an_adapter_trains_and_loads_again(family: str, tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", family)
    prepared = made.prepared(base, adapter=LORA, base=Base(ref="./base", digest="sha256:1"))
    assert step(prepared) > step(prepared)
    assert all("lora_" in name for name, one in prepared.model.named_parameters() if one.requires_grad)
    folder = keep.save(prepared, tmp_path)
    plain = PeftModel.from_pretrained(again(base, family), folder)
    torch.testing.assert_close(outputs(plain), outputs(prepared.model), rtol=1e-5, atol=1e-5)
    assert not any(of_images(name) for name, _ in plain.named_parameters() if "lora_" in name)


def test_the_forecast_knows_what_an_adapter_trains_whole(tmp_path: Path) -> None:
    base = made.folder(tmp_path, "llama", tie_word_embeddings=False)
    whole = Adapter(type="lora", r=2, modules_to_save=("embed_tokens", "lm_head"))
    for adapter in (whole, Adapter(type="lora", r=2)):
        prepared = made.prepared(base, adapter=adapter)
        assert prepared.forecast["trainable_parameters"] == prepared.trainable


def test_a_row_longer_than_the_positions_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    positions = made.prepared(made.folder(tmp_path, "llama"), say=said.append).facts["max_positions"]
    assert said == []
    made.prepared(tmp_path, say=said.append, seq_len=positions + 8)
    assert len(said) == 1
    assert f"{positions:,} positions, fewer than the {positions + 8:,} tokens of batch.seq_len" in said[0]
    assert "packing.long decides" in said[0]


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", "qwen3")
    for name in ("a", "b"):
        torch.manual_seed(len(name))  # whatever was drawn before
        prepared = made.prepared(base, adapter=LORA, seed=3, add=["<|im_start|>", "<|im_end|>"])
        keep.save(prepared, tmp_path / name)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / name / "adapter").iterdir()} for name in ("a", "b"))
    assert first == second
    assert str(tmp_path) not in first["adapter_config.json"].decode()
