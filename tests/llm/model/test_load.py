"""Weights that cannot be trained as they are, and what they are kept in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from runner.llm.model import keep
from runner.llm.model.prepared import Adapter, Base
from runner.schema.errors import JobError
from tests.llm.model import made

LORA = Adapter(type="lora", r=2)


def changed(folder: Path, change: Any) -> Path:
    """The model with other weights."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("lm_head.weight"), r"they lack 'lm_head\.weight'; give a checkpoint saved with"),
        (
            lambda weights: weights.update({"lm_head.weight": torch.zeros(39, 32)}),
            "have another size at 'lm_head.weight'|the model cannot be loaded: .*size",
        ),
    ],
    ids=["missing", "mismatched"],
)
def test_weights_that_do_not_fit_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    folder = made.folder(tmp_path, "llama")
    facts = made.prepared(folder)  # as the registry saw it before it was changed
    assert facts.trainable
    changed(folder, change)
    with pytest.raises(JobError, match=message) as error:
        made.prepared(folder)
    assert error.value.failure == "ModelInvalid"


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    folder = made.folder(tmp_path, "llama")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "config.json").write_text((folder / "config.json").read_text().replace('"silu"', '"no such function"'))
    with pytest.raises(JobError, match=r"the model cannot be loaded: .*no such function"):
        made.prepared(folder)
    assert (folder / "model.safetensors").read_bytes() == whole


def test_weights_without_numbers_cannot_be_rounded(tmp_path: Path) -> None:
    key = "model.layers.1.mlp.up_proj.weight"
    folder = changed(made.folder(tmp_path, "llama"), lambda weights: weights[key].fill_(torch.nan))
    with pytest.raises(JobError, match=r"'model.layers.1.mlp.up_proj': .*NaN or infinite") as error:
        made.prepared(folder, adapter=LORA, quantize="nf4")
    assert error.value.failure == "ModelInvalid"


@pytest.mark.parametrize("adapter", [None, LORA], ids=["whole", "adapter"])
def test_a_16_bit_run_keeps_16_bit_weights_and_fp32_adapters(adapter: Any, tmp_path: Path) -> None:
    folder = made.folder(tmp_path / "base", "gemma3-vision")
    prepared = made.prepared(folder, precision=made.BF16, adapter=adapter, base=Base(ref="hf:a/b@c0ffee", digest="d"))
    assert {one.dtype for one in prepared.model.parameters() if one.requires_grad} == {torch.float32}
    kept = keep.save(prepared, tmp_path)
    file = kept / ("model.safetensors" if adapter is None else "adapter_model.safetensors")
    assert {one.dtype for one in load_file(file).values()} == {torch.bfloat16 if adapter is None else torch.float32}
    if adapter is None:
        assert '"dtype": "bfloat16"' in (kept / "config.json").read_text()
    else:
        said = (kept / "adapter_config.json").read_text()
        assert '"base_model_name_or_path": "a/b"' in said
        assert '"revision": "c0ffee"' in said
