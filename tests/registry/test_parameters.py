"""Headers of published checkpoints, in small: what counts as a parameter, and how often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.registry.resolve import resolve
from tests.registry import models

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 6,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
Q = "model.layers.0.self_attn.q_proj.weight"
TENSORS: dict[str, Any] = {
    "lm_head.weight": ("BF16", (6, 8)),
    "model.embed_tokens.weight": ("BF16", (6, 8)),
    Q: ("BF16", (8, 8)),
    "model.norm.weight": ("BF16", (8,)),
}
WHOLE = 48 + 48 + 64 + 8


def facts(tmp_path: Path, tensors: dict[str, Any] = TENSORS, **config: Any) -> dict[str, Any]:
    content = {"config.json": json.dumps(CONFIG | config).encode(), "tokenizer.json": b"{}"}
    models.write(tmp_path / "model", content | {"model.safetensors": models.safetensors(tensors)})
    return resolve("./model", folder=tmp_path).facts


def test_each_parameter_counts_once(tmp_path: Path) -> None:
    found = facts(tmp_path)
    assert (found["parameters"], found["embedding_parameters"], found["quantisable_parameters"]) == (WHOLE, 96, 64)
    assert (found["lora_targets"], found["lora_width"], found["quantisable"]) == (["q_proj"], 16, ["q_proj"])
    tied = facts(tmp_path, tie_word_embeddings=True)  # some files hold the head again
    assert (tied["parameters"], tied["embedding_parameters"], tied["tied"]) == (WHOLE - 48, 48, True)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.0.mlp.gate.e_score_correction_bias",
        "model.layers.1.self_attn.q_proj.weight",  # a layer that the config does not have
        "model.layers.0.self_attn.q_proj.weight_scale_inv",
    ],
)
def test_buffers_scales_and_layers_beyond_are_no_parameters(name: str, tmp_path: Path) -> None:
    assert facts(tmp_path, TENSORS | {name: ("F32", (4, 4))})["parameters"] == WHOLE


def test_packed_weights_count_two_in_a_byte(tmp_path: Path) -> None:
    packed = TENSORS | {
        Q: ("U8", (32, 1)),
        f"{Q}.absmax": ("U8", (1,)),
        f"{Q}.quant_state.bitsandbytes__nf4": ("U8", (9,)),
    }
    found = facts(tmp_path, packed, quantization_config={"quant_method": "bitsandbytes"})
    assert (found["parameters"], found["quantised"], found["lora_width"]) == (WHOLE, "bitsandbytes", None)
    experts = "model.layers.0.mlp.experts.gate_up_proj"
    packed = TENSORS | {f"{experts}_blocks": ("U8", (2, 4, 16)), f"{experts}_scales": ("U8", (2, 4))}
    found = facts(tmp_path, packed, quantization_config={"quant_method": "mxfp4"})
    assert (found["parameters"], found["lora_width"]) == (WHOLE + 256, 16)


def test_pickled_weights_are_estimated(tmp_path: Path) -> None:
    content = {"config.json": json.dumps(CONFIG | {"dtype": "bfloat16"}).encode(), "tokenizer.json": b"{}"}
    models.write(tmp_path / "model", content | {"pytorch_model.bin": b"\x80" * 4000})
    found = resolve("./model", folder=tmp_path, allow_pickle=True).facts
    assert (found["parameters"], found["lora_width"]) == (2000, None)
    assert found["parameters_from"] == "estimate from the file size at 16 bits"


def test_a_name_decides_nothing(tmp_path: Path) -> None:
    facts(tmp_path)
    (tmp_path / "model").rename(tmp_path / "mistral-7b-instruct")
    found = resolve("./mistral-7b-instruct", folder=tmp_path)
    assert (found.family.name, found.ref) == ("llama", "./mistral-7b-instruct")
