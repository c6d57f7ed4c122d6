"""Forecasts against what torch and PEFT hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from runner.kernels import formats
from runner.kernels.quantised import size
from runner.registry.forecast import QUANTIZE, activations, forecast, logits, max_documents, rank_of, weights
from runner.registry.recognise import families
from runner.registry.resolve import resolve
from runner.schema.errors import PlanError
from tests.registry import tiny_llm

NAMES = [name for name, family in families().items() if family.language]
LLAMA: dict[str, Any] = {  # Llama 3.1 8B
    "parameters": 8_030_261_248,
    "weights_bytes": 16_060_522_496,
    "quantised": None,
    "vision_parameters": 0,
    "quantisable_parameters": 6_979_321_856,
    "lora_width": 32 * (8192 + 2 * 5120 + 8192 + 3 * 18432),
    "hidden": 4096,
    "layers": 32,
    "heads": 32,
    "kv_heads": 8,
    "head_dim": 128,
    "value_dim": 128,
    "intermediate": 14336,
    "vocab_size": 128256,
    "norm": "rms",
    "norm_place": "before",
    "qk_norm": None,
    "gated": True,
    "experts": None,
    "head": True,
}


def resolved(name: str, tmp_path: Path, **changes: Any) -> tuple[dict[str, Any], Any]:
    model = tiny_llm.model(name, **changes)
    tiny_llm.save(model, tmp_path / "model")
    return resolve("./model", folder=tmp_path).facts, model


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_adapters_are_exact(name: str, tmp_path: Path) -> None:
    facts, model = resolved(name, tmp_path)
    found = forecast(facts, rank=4)
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=facts["lora_pattern"]))
    adapter = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert found["trainable_parameters"] == adapter
    assert (found["gradients"], found["optimizer"]) == (4 * adapter, 8 * adapter)
    assert found["weights"] == 2 * found["parameters"] + 4 * adapter


def kept(model: Any, tokens: int) -> int:
    """Bytes that autograd keeps of a forward pass, weights aside."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    alive: list[Any] = []  # so that no address is used twice
    with torch.autograd.graph.saved_tensors_hooks(lambda x: alive.append(x) or x, lambda x: x):
        model(input_ids=torch.ones(1, tokens, dtype=torch.long))
    stores = {s.data_ptr(): s.nbytes() for s in (x.untyped_storage() for x in alive)}
    return sum(size for address, size in stores.items() if address not in own)


@pytest.mark.parametrize("dtype, width", [(torch.float32, 4), (torch.bfloat16, 2)], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name, off", [("llama", 0), ("qwen2", 0), ("qwen3", 0.15), ("phi3", 0.25), ("bert", 0.25)])
def test_activations_are_what_a_layer_keeps(name: str, off: float, dtype: Any, width: int, tmp_path: Path) -> None:
    plain = {"use_sliding_window": False} if name == "qwen2" else {}
    facts, _ = resolved(name, tmp_path, **plain)
    few, many = (tiny_llm.model(name, num_hidden_layers=layers, **plain).base_model.to(dtype) for layers in (1, 3))
    layer = (kept(many, 64) - kept(few, 64)) / 2 / 64
    assert activations(facts, width) == pytest.approx(layer, rel=off, abs=0)


def test_a_published_shape() -> None:
    full = forecast(LLAMA, seq_len=4096, batch=2)
    assert full["weights"] + full["gradients"] + full["optimizer"] == 16 * LLAMA["parameters"]
    assert full["logits"]["whole"] == 2 * 4096 * 128256 * 14
    assert full["logits"]["chunked"] == 1024 * 128256 * 14
    assert full["activations"]["checkpointed"] < full["activations"]["kept"] / 10
    small = forecast(LLAMA, seq_len=4096, batch=2, rank=16, quantize="nf4")
    assert small["trainable_parameters"] == 41_943_040
    assert small["weights"] - 4 * small["trainable_parameters"] == pytest.approx(5.70e9, rel=0.01)
    assert small["total"]["saving"] < small["total"]["plain"] < full["total"]["plain"]
    sizes = [forecast(LLAMA, rank=16, quantize=how)["weights"] for how in ("none", "int8", "fp8", "int4", "nf4")]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("how", [how for how in QUANTIZE if how != "none"])
def test_quantised_weights_have_the_size_of_their_format(how: Any) -> None:
    """To the offset of every weight in nf4, and to the rows of int8 and fp8 that are longer than the hidden size."""
    layer = [(4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336)]
    assert 32 * sum(rows * columns for rows, columns in layer) == LLAMA["quantisable_parameters"]
    held = 32 * sum(size(how, shape) for shape in layer)
    rest = 2 * (LLAMA["parameters"] - LLAMA["quantisable_parameters"])
    assert weights(LLAMA, 2, how) - rest == pytest.approx(held, rel=1e-6 if "8" not in how or "_" in how else 2e-4)
    assert set(QUANTIZE) == {"none", *formats.names()}


def test_documents_of_a_packed_row_stay_below_int32() -> None:
    heads = LLAMA | {"heads": 16, "head_dim": 128}
    most = max_documents(heads, 8129)
    assert most == pytest.approx(8129, rel=0.01)  # one-token documents failed there on a B200
    row = 16 * 128
    assert (8129 + 128 * most) * row < 1 << 31 <= (8129 + 128 * (most + 1)) * row
    assert max_documents(heads, 1 << 30) == 0


def test_what_cannot_be_trained() -> None:
    with pytest.raises(PlanError, match="quantised to 'nf4' cannot be trained themselves; train an adapter"):
        forecast(LLAMA, quantize="nf4")
    with pytest.raises(PlanError, match="quantised to 'fp8' cannot"):
        forecast(LLAMA | {"quantised": "fp8"})
    assert forecast(LLAMA | {"quantised": "fp8", "weights_bytes": 8}, rank=1)["weights"] < 4 * 3_000_000
    with pytest.raises(PlanError, match="do not show the widths"):
        forecast(LLAMA | {"lora_width": None}, rank=8)
    assert logits(LLAMA | {"head": False}, 100, 2) == 0


@pytest.mark.parametrize("adapter, rank", [("none", None), ("lora:16", 16)])
def test_adapters_are_read(adapter: str, rank: int | None) -> None:
    assert rank_of(adapter) == rank


@pytest.mark.parametrize(
    "adapter", ["", "lora", "lora:", "lora:0", "lora:x", "lora:-1", "lora:²", "lora:9999", "dora:8"]
)
def test_adapters_that_are_none(adapter: str) -> None:
    with pytest.raises(PlanError, match="adapter must be none or lora:RANK"):
        rank_of(adapter)
