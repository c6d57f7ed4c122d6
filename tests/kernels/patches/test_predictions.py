"""What the registry says of a saved model without torch is what kernels do to that model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.tuners.lora import LoraLayer

from runner.kernels.ledger import Wanted
from runner.kernels.patching import CLASHES, FORWARDS, GPU_ONLY, apply, patched
from runner.kernels.quantised import QuantisedLinear, quantise_linears
from runner.registry.resolve import resolve
from tests.kernels.patches.training import LENGTH, NAMES, batch, loss_of, must_agree, twins
from tests.registry import tiny_llm

HALF = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 16}
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 16.0, "original_max_position_embeddings": 4}
WHOLE_LONG = LONG | {"short_factor": [1.0] * 4, "long_factor": [2.0, 3.0, 4.0, 5.0]}
HALF_LONG = LONG | {"short_factor": [1.0] * 2, "long_factor": [2.0, 3.0], "partial_rotary_factor": 0.5}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("phi3", {"rope_parameters": HALF}),
    ("phi3", {"rope_parameters": WHOLE_LONG, "sliding_window": 8}),
    ("phi3", {"rope_parameters": HALF_LONG}),
    ("llama", {"rope_parameters": LLAMA3}),
    ("llama", {"rope_parameters": tiny_llm.YARN, "tie_word_embeddings": True}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"hidden_act": "gelu"}),
    ("llama", {"hidden_act": "swish"}),
    ("llama", {"head_dim": 256}),
    ("llama", {"head_dim": 258}),
    ("gemma", {"hidden_act": "silu"}),
    ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    *(("modernbert", {"hidden_activation": name}) for name in ("silu", "gelu_new", "gelu_fast", "quick_gelu")),
    *(("modernbert", {"hidden_activation": name}) for name in ("gelu_10", "gelu_accurate", "gelu_python_tanh")),
    ("modernbert", {"norm_bias": True, "attention_bias": True, "mlp_bias": True}),
    ("mistral", {"sliding_window": None}),
    ("mixtral", {"sliding_window": 8, "hidden_act": "gelu"}),
    ("qwen2", {"use_sliding_window": False}),
    ("qwen3", {"rope_parameters": HALF}),
    ("qwen3-moe", {"mlp_only_layers": [0]}),
    ("qwen3-moe", {"mlp_only_layers": [0, 1]}),
    ("qwen3-moe", {"decoder_sparse_step": 2, "hidden_act": "gelu"}),
    ("smollm3", {"no_rope_layers": [0, 0, 0, 0]}),
    ("smollm3", {"no_rope_layers": [1, 1, 1, 1], "use_sliding_window": True, "sliding_window": 8}),
    ("granite", {"logits_scaling": 8.0, "residual_multiplier": 0.2, "embedding_multiplier": 12.0}),
    ("deepseek-v2", {"first_k_dense_replace": 2}),
    ("deepseek-v3", {"first_k_dense_replace": 0, "v_head_dim": 24}),
    ("deepseek-v3", {"qk_nope_head_dim": 256}),
    ("gpt-oss", {"head_dim": 258}),
    ("bert", {"hidden_act": "relu"}),
    *(
        ("llava", {"text_config": text})
        for text in (
            tiny_llm.NARROW | {"model_type": "qwen3"},
            tiny_llm.GROUPED | {"model_type": "phi3", "rope_parameters": HALF},
        )
    ),
]
CASES: list[tuple[str, dict[str, Any]]] = [*((name, {}) for name in NAMES), *VARIANTS]


def facts_of(made: Any, folder: Path) -> dict[str, Any]:
    tiny_llm.save(made, folder / "some-fine-tune")
    return resolve("./some-fine-tune", folder=folder).facts


def in_text(path: str) -> bool:
    return not any(part.startswith(("vision", "visual")) for part in path.split("."))


@pytest.mark.parametrize("name, changes", CASES, ids=[f"{name}-{''.join(changes)}" for name, changes in CASES])
def test_patches_that_are_said_are_those_that_go_in(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    made = tiny_llm.model(name, **changes)
    facts = facts_of(made, tmp_path)
    said = {one["patch"] for one in facts["patches"] if one["wanted"]}
    listed = {one["patch"] for one in facts["patches"]}
    clashing = {one for pair in CLASHES if listed & set(pair) for one in set(pair) - listed}
    tuned = peft.get_peft_model(made, peft.LoraConfig(r=2, target_modules=facts["lora_pattern"]))
    layers = {path: part for path, part in tuned.named_modules() if isinstance(part, LoraLayer)}
    assert layers
    assert {path.rpartition(".")[2] for path in layers} == set(facts["lora_targets"])
    assert all(type(part.base_layer) is torch.nn.Linear and in_text(path) for path, part in layers.items())
    wanted: dict[str, Wanted] = {
        patch: "required" if patch in said else "preferred" for patch in set(FORWARDS) - clashing
    }
    with patched(tuned, wanted, with_triton=False) as ledger:
        assert {line.what for line in ledger.applied()} == said
        assert set(ledger.of("lora_linear")[0].places) == set(layers)
        assert all(line.why for line in ledger.lines)


@pytest.mark.parametrize("with_triton", [True, False])
@pytest.mark.parametrize(
    "name, changes",
    [
        ("phi3", {"rope_parameters": HALF}),
        ("phi3", {"rope_parameters": WHOLE_LONG}),
        ("phi3", {"rope_parameters": HALF_LONG}),
        ("llava", {"text_config": tiny_llm.GROUPED | {"model_type": "phi3", "rope_parameters": HALF}}),
        ("llama", {"rope_parameters": LLAMA3}),
    ],
    ids=["half", "long", "half and long", "half within", "llama3"],
)
def test_other_rotary_positions_are_turned_alike(
    name: str, changes: dict[str, Any], with_triton: bool, device: str
) -> None:
    ours, theirs = twins(name, device, **changes)
    with patched(ours, {"rope": "required"}, with_triton=with_triton):
        must_agree(ours, theirs, batch(name, 1, device))


@pytest.mark.parametrize("with_triton", [True, False])
@pytest.mark.parametrize("name", ["qwen2-vl", "qwen2-5-vl"])
def test_positions_in_three_sections_are_turned_alike(name: str, with_triton: bool, device: str) -> None:
    ours, theirs = twins(name, device)
    fields = batch(name, 1, device)
    tokens = torch.arange(LENGTH, device=device).expand(2, -1)
    fields["position_ids"] = torch.stack([tokens, tokens // 2, 7 * tokens % 5])  # of time, height and width
    with patched(ours, {"rope": "required"}, with_triton=with_triton):
        must_agree(ours, theirs, fields)
        alike = fields | {"position_ids": tokens.expand(3, -1, -1)}
        assert not torch.equal(loss_of(ours, alike), loss_of(ours, fields))


@pytest.mark.parametrize("name", NAMES)
def test_layers_that_are_said_to_be_quantisable_are_those_that_get_quantised(name: str, tmp_path: Path) -> None:
    made = tiny_llm.model(name)
    facts = facts_of(made, tmp_path)
    assert {path.rpartition(".")[2] for path in quantise_linears(made, "int8")} == set(facts["quantisable"])
    layers = [part for part in made.modules() if isinstance(part, QuantisedLinear)]
    assert sum(part.in_features * part.out_features for part in layers) == facts["quantisable_parameters"]


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe", "deepseek-v2", "deepseek-v3", "gpt-oss"])
def test_experts_on_a_cpu_are_what_transformers_takes_already(name: str) -> None:
    made = tiny_llm.model(name)
    assert made.config._experts_implementation == "grouped_mm"
    assert "experts" in GPU_ONLY
    (line,) = apply(made, {"experts": "preferred"}).ledger.lines
    assert (line.applied, line.why) == (False, "no GPU: torch's own is as fast")
