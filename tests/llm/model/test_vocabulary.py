"""New entries of the vocabulary in every kind of run, and names that a model does not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open

from runner.llm.model import keep, vocabulary
from runner.llm.model.prepared import Adapter
from runner.schema.errors import JobError
from tests.llm.model import made
from tests.llm.model.test_begin import again, outputs, step

NEW = ["<|im_start|>", "<|im_end|>"]
LORA = Adapter(type="lora", r=2)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3-vision", "llava"])  # untied, tied, and with images
def test_new_rows_are_the_mean_of_the_old_in_embeddings_and_head(family: str, tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", family)
    prepared = made.prepared(base, add=[*NEW, "<eos>"], multiple=16)
    tokenizer, model, before = prepared.tokenizer, prepared.model, again(base, family)
    assert tokenizer.convert_tokens_to_ids(NEW) == [40, 41]
    assert tokenizer.eos_token_id == 2
    assert tokenizer("w3 <|im_end|> w4")["input_ids"] == [3, 41, 4]
    for new, old in [
        (model.get_input_embeddings().weight, before.get_input_embeddings().weight),
        (model.get_output_embeddings().weight, before.get_output_embeddings().weight),
    ]:
        assert new.shape[0] == 48
        assert torch.equal(new[:40], old)
        torch.testing.assert_close(new[40:], old.mean(0).expand(8, -1))
    same = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert same == (family.startswith("gemma"))
    assert step(prepared) > step(prepared)
    folder = keep.save(prepared, tmp_path)
    torch.testing.assert_close(outputs(again(folder, family)), outputs(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3-vision"])
@pytest.mark.parametrize("form", ["none", "nf4"])
def test_an_adapter_with_new_tokens_brings_its_rows(family: str, form: str, tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", family)
    prepared = made.prepared(base, add=NEW, multiple=8, adapter=LORA, quantize=form)
    embeddings, head = prepared.model.get_input_embeddings(), prepared.model.get_output_embeddings()
    tied = family.startswith("gemma")
    assert (embeddings.weight is head.weight) == tied
    assert embeddings.weight.requires_grad
    step(prepared)
    folder = keep.save(prepared, tmp_path)
    about = json.loads((folder / "base.json").read_text())
    assert about["embedding_rows"] == 48
    if form == "none":
        plain = again(base, family)
        plain.resize_token_embeddings(about["embedding_rows"], mean_resizing=False)
        loaded = PeftModel.from_pretrained(plain, folder)
        torch.testing.assert_close(outputs(loaded), outputs(prepared.model), rtol=1e-5, atol=1e-5)
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        whole = [file.get_tensor(name) for name in file.keys() if "lora_" not in name]  # noqa: SIM118 (no mapping)
    assert [len(one) for one in whole] == [48, 48]
    assert torch.equal(*whole) == tied


def test_a_vocabulary_never_shrinks_and_tokens_that_are_there_change_nothing(tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", "qwen3", vocab_size=56)
    prepared = made.prepared(base, add=["<eos>"])
    assert torch.equal(prepared.model.get_input_embeddings().weight, again(base, "qwen3").get_input_embeddings().weight)
    grown = made.prepared(base, add=NEW)
    rows = grown.model.get_input_embeddings().weight
    assert rows.shape[0] == 56  # the new ones take rows that stood for nothing
    torch.testing.assert_close(rows[41], rows[:40].mean(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"target_modules": ("q_porj",)},
            r"target_modules names 'q_porj', .*did you mean 'q_proj'\? there are .*up_proj",
        ),
        ({"modules_to_save": ("head",)}, "modules_to_save names 'head', .*embed_tokens"),
        ({"target_modules": ("embed_tokens",)}, "target_modules names 'embed_tokens'"),
        ({"target_modules": ("gate_proj",)}, "PEFT cannot make the adapter: .*without also targeting up_proj"),
    ],
)
def test_a_name_that_cannot_be_had_is_an_error(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", "deepseek-v2" if "PEFT" in message else "llama")
    with pytest.raises(JobError, match=message):
        made.prepared(base, adapter=Adapter(type="lora", r=2, **changes))


@pytest.mark.parametrize(
    ("family", "names", "count"), [("llava", ("q_proj", "v_proj"), 4), ("olmo2", ("mlp.down_proj", "lm_head"), 3)]
)
def test_named_modules_are_those_of_the_text(family: str, names: tuple[str, ...], count: int, tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", family)
    prepared = made.prepared(base, adapter=Adapter(type="lora", r=2, target_modules=names))
    found = [name for name, _ in prepared.model.named_parameters() if "lora_A" in name]
    assert len(found) == count, found
    assert not any("vision" in name for name in found)
    step(prepared)
    folder = keep.save(prepared, tmp_path)
    loaded = PeftModel.from_pretrained(again(base, family), folder)
    torch.testing.assert_close(outputs(loaded), outputs(prepared.model), rtol=1e-5, atol=1e-5)


def test_a_tokenizer_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", "llama")
    (base / "tokenizer.json").write_text("{}")
    with pytest.raises(JobError, match=r"tokenizer cannot be read: .*; save it beside the weights again"):
        vocabulary.open(base)


def test_a_tied_head_that_is_to_be_trained_is_trained_as_the_embeddings(tmp_path: Path) -> None:
    base = made.folder(tmp_path / "base", "gemma2")
    prepared = made.prepared(base, adapter=Adapter(type="lora", r=2, modules_to_save=("lm_head",)))
    assert prepared.model.get_output_embeddings().weight is prepared.model.get_input_embeddings().weight
    assert prepared.model.get_output_embeddings().weight.requires_grad
    step(prepared)
    loaded = PeftModel.from_pretrained(again(base, "gemma2"), keep.save(prepared, tmp_path))
    torch.testing.assert_close(outputs(loaded), outputs(prepared.model), rtol=1e-5, atol=1e-5)
