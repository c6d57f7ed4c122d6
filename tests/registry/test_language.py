"""Families of language models against transformers: tiny seeded models, saved by it and resolved by us."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from runner.registry.family import Resolved
from runner.registry.forecast import forecast
from runner.registry.language import PATCHES
from runner.registry.recognise import families
from runner.registry.resolve import resolve
from runner.schema.errors import PlanError
from tests.registry import tiny_llm

ROOT = Path(__file__).parents[2]
Known = Callable[[str], tuple[Resolved, Any]]
NAMES = [name for name, family in families().items() if family.language]
BIASED = {
    "qkv": r"(q_proj|qkv_proj|query|attn\.q|Wqkv|q_a_proj)",
    "o": r"(o_proj|attention\.output\.dense|attn\.o|attn\.Wo)",
}
BIASED["mlp"] = r"(down_proj(_bias)?|mlp\.Wo|[0-9]\.output\.dense)"


def resolved(name: str, tmp_path: Path, **changes: Any) -> tuple[Resolved, Any]:
    """The tiny model of ``name``, and what it is resolved to from its folder."""
    model = tiny_llm.model(name, **changes)
    tiny_llm.save(model, tmp_path / "some-fine-tune")
    return resolve("./some-fine-tune", folder=tmp_path), model


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """What ``resolved`` gives, made once a family: for tests that leave the folder as it is."""
    return cache(lambda name: resolved(name, tmp_path_factory.mktemp(name)))


def edit(tmp_path: Path, **changes: Any) -> None:
    """Change keys of the saved config; ``...`` removes one."""
    path = tmp_path / "some-fine-tune" / "config.json"
    config = {key: value for key, value in (json.loads(path.read_text()) | changes).items() if value is not ...}
    path.write_text(json.dumps(config))


def refusal(tmp_path: Path) -> str:
    with pytest.raises(PlanError) as error:
        resolve("./some-fine-tune", folder=tmp_path)
    assert "\n" not in str(error.value)
    return str(error.value)


def text_of(model: Any) -> Any:
    """The text config of ``model``."""
    return model.config.get_text_config()


@pytest.mark.parametrize("name", NAMES)
def test_a_family_resolves_what_transformers_saves(name: str, known: Known) -> None:
    found, model = known(name)
    facts, config = found.facts, text_of(model)
    assert found.family.name == name
    assert found.model_type == model.config.model_type
    assert found.lack is None
    assert json.loads(json.dumps(facts)) == facts
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert (facts["hidden"], facts["layers"], facts["heads"]) == (32, config.num_hidden_layers, 4)
    assert (facts["vocab_size"], facts["intermediate"], facts["stop_tokens"]) == (40, 48, [2])
    assert facts["kv_heads"] * facts["groups"] == 4
    head = model.get_output_embeddings()
    assert facts["head"] is (head is not None)
    assert facts["tied"] is (head is None or head.weight is model.get_input_embeddings().weight)
    towers = [p for n, p in model.named_parameters() if "vis" in n or "projector" in n]
    assert facts["vision_parameters"] == sum(p.numel() for p in towers)
    assert facts["images"] is bool(towers)
    tables = {id(one): one.weight.numel() for one in (model.get_input_embeddings(), head) if one is not None}
    assert facts["embedding_parameters"] == (1 if facts["tied"] else len(tables)) * 40 * 32


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_those_of_the_modules(name: str, known: Known) -> None:
    found, model = known(name)
    facts = found.facts
    text = {n: p for n, p in model.named_parameters() if re.search(r"layers?\.\d+\.", n) and "vis" not in n}
    for part, pattern in BIASED.items():
        biases = [n for n in text if re.search(rf"{pattern}(\.bias|_bias)?$", n) and n.endswith("bias")]
        assert facts["bias"][part] is bool(biases), (part, biases)
    norms = {p.numel() for n, p in text.items() if n.endswith("q_norm.weight")}
    expected = {None: set(), "head": {facts["head_dim"]}, "projection": {4 * facts["head_dim"]}}
    assert norms == expected[facts["qk_norm"]]
    assert facts["sinks"] is any(n.endswith("sinks") for n in text)
    assert facts["norm"].startswith("rms") is any("RMSNorm" in type(m).__name__ for m in model.modules())
    if facts["experts"]:
        stacked = [m for m in model.modules() if type(m).__name__.endswith("Experts")]
        assert len(facts["experts"]["layers"]) == len(stacked)
        assert facts["experts"]["count"] == 4
        assert facts["experts"]["intermediate"] in {s for m in stacked for p in m.parameters() for s in p.shape}
    layers = (m for n, m in model.named_modules() if re.search(r"^(?!.*vis).*\d\.(self_)?attn$", n))
    windows = [getattr(m, "sliding_window", None) for m in layers]
    if windows and name not in {"mistral", "mixtral", "phi3"}:  # these read it from their config, not from a layer
        assert [i for i, window in enumerate(windows) if window] == facts["sliding_layers"]


@pytest.mark.parametrize("name", NAMES)
def test_auto_adapters_go_to_linear_modules_of_the_text(name: str, known: Known) -> None:
    found, model = known(name)
    modules = dict(model.named_modules())
    hit = {n: modules[n] for n in modules if re.fullmatch(found.facts["lora_pattern"], n)}
    assert hit
    assert all(type(module) is torch.nn.Linear for module in hit.values())
    assert {n.rpartition(".")[2] for n in hit} == set(found.facts["lora_targets"])
    assert not [n for n in hit if "vis" in n or "pooler" in n]
    assert found.facts["lora_width"] == sum(m.in_features + m.out_features for m in hit.values())
    left = [n for n, m in modules.items() if type(m) is torch.nn.Linear and re.search(r"layers?\.\d+\.", n)]
    mlps = r"\.mlp\." if name.startswith("deepseek") else "vis"  # PEFT would take them for the experts
    assert {n for n in left if not re.search(rf"vis|{mlps}", n)} == set(hit)  # else nothing of the text is left out


@pytest.mark.parametrize("name", NAMES)
def test_keys_left_out_are_what_transformers_takes(name: str) -> None:
    family = families()[name]
    config = getattr(transformers, tiny_llm.MODELS[name][0])().get_text_config()
    renamed = {"_sliding_window_pattern", "rope_theta", "rope_local_base_freq", "global_rope_theta", "local_rope_theta"}
    renamed |= {"partial_rotary_factor", "global_attn_every_n_layers"}
    if name.endswith("-vl"):
        renamed |= {"tie_word_embeddings"}  # of the whole model's config
    for key, value in family.defaults.items():
        if key not in renamed:
            assert getattr(config, key) == value, key
    ropes = getattr(config, "rope_parameters", None) or {}
    thetas = {ropes["rope_theta"]} if "rope_theta" in ropes else {part["rope_theta"] for part in ropes.values()}
    assert thetas == {value for key, value in family.defaults.items() if "theta" in key or "base_freq" in key}


def test_every_family_says_what_it_gets() -> None:
    for name in NAMES:
        language = families()[name].language
        assert language is not None
        assert set(language.patches) <= set(PATCHES), name
        assert language.lora
    assert set(NAMES) == set(tiny_llm.MODELS)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("mistral", (8, [0, 1])),
        ("mixtral", (None, [])),
        ("qwen2", (8, [1])),
        ("gemma2", (8, [0])),
        ("gemma3", (8, [0, 1, 2, 3, 4])),
        ("gpt-oss", (8, [0])),
        ("smollm3", (None, [])),
        ("modernbert", (8, [1, 2])),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_layers_with_a_window(name: str, expected: Any, listed: bool, tmp_path: Path) -> None:
    resolved(name, tmp_path)
    if not listed:  # as configs were before transformers wrote layer_types
        edit(tmp_path, layer_types=...)
    facts = resolve("./some-fine-tune", folder=tmp_path).facts
    assert (facts["sliding_window"], facts["sliding_layers"]) == expected


def test_a_window_set_to_null_is_none(tmp_path: Path) -> None:
    resolved("mistral", tmp_path, sliding_window=None)
    assert resolve("./some-fine-tune", folder=tmp_path).facts["sliding_window"] is None
    edit(tmp_path, sliding_window=...)
    assert resolve("./some-fine-tune", folder=tmp_path).facts["sliding_window"] == 4096


def test_rotary_positions_as_they_were_and_are_written(tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 16}
    found, _ = resolved("llama", tmp_path, rope_parameters=scaling | {"rope_theta": 5e5})
    assert found.facts["rope"] == {"type": "llama3", "theta": 5e5} | {
        k: v for k, v in scaling.items() if k != "rope_type"
    }
    edit(tmp_path, rope_parameters=..., rope_theta=5e5, rope_scaling=scaling)
    assert resolve("./some-fine-tune", folder=tmp_path).facts["rope"] == found.facts["rope"]
    smol, _ = resolved("smollm3", tmp_path)
    assert smol.facts["rope"] == {"type": "default", "theta": 2e6, "layers_without": [3]}
    gemma, _ = resolved("gemma3", tmp_path)
    whole, local = {"type": "default", "theta": 1e6}, {"type": "default", "theta": 1e4}
    assert gemma.facts["rope"] == {"full_attention": whole, "sliding_attention": local}
    edit(tmp_path, rope_parameters=..., rope_theta=1e6, rope_local_base_freq=1e4)
    assert resolve("./some-fine-tune", folder=tmp_path).facts["rope"] == gemma.facts["rope"]


def wanted(found: Resolved) -> set[str]:
    return {one["patch"] for one in found.facts["patches"] if one["wanted"]}


def test_patches_are_wanted_where_the_model_fits(tmp_path: Path) -> None:
    found, _ = resolved("llama", tmp_path)
    assert wanted(found) == {"attention", "rms_norm", "rope", "swiglu", "linear_cross_entropy", "lora_linear"}
    edit(tmp_path, hidden_act="gelu", head_dim=512)
    assert wanted(resolve("./some-fine-tune", folder=tmp_path)) == wanted(found) - {"swiglu", "attention"}
    assert "attention" in wanted(resolved("gpt-oss", tmp_path)[0])
    latent = wanted(resolved("deepseek-v3", tmp_path)[0])
    assert ("attention" in latent, "rope" in latent) == (True, False)
    edit(tmp_path, v_head_dim=264)
    assert "attention" not in wanted(resolve("./some-fine-tune", folder=tmp_path))
    assert "qk_norm_rope" in wanted(resolved("qwen3", tmp_path)[0])
    assert "rope" in wanted(resolved("qwen2-vl", tmp_path)[0])  # in sections: one table a token all the same
    assert {"geglu", "qk_norm_rope"} <= wanted(resolved("gemma3", tmp_path)[0])


def test_soft_caps_and_multipliers(tmp_path: Path) -> None:
    gemma, _ = resolved("gemma2", tmp_path)
    assert (gemma.facts["softcap_attention"], gemma.facts["softcap_logits"]) == (50.0, 30.0)
    assert gemma.facts["scales"] == {"query_pre_attn_scalar": 256}
    granite, _ = resolved("granite", tmp_path)
    assert granite.facts["scales"]["attention_multiplier"] == 0.1
    assert granite.facts["softcap_logits"] is None


def test_the_text_inside_a_model_for_images(tmp_path: Path) -> None:
    inside = {"text_config": tiny_llm.GROUPED | {"model_type": "mistral", "sliding_window": 8}}
    found, _ = resolved("llava", tmp_path, **inside)
    assert (found.family.name, found.facts["text_family"]) == ("llava", "mistral")
    assert found.facts["sliding_layers"] == [0, 1]
    assert found.facts["images"] is True


def test_a_text_model_out_of_one_for_images_is_no_model_for_images(tmp_path: Path) -> None:
    model = tiny_llm.model("gemma3")
    tiny_llm.save(model, tmp_path / "some-fine-tune")
    inside = json.loads((tmp_path / "some-fine-tune" / "config.json").read_text())
    (tmp_path / "some-fine-tune" / "config.json").write_text(
        json.dumps({"model_type": "gemma3", "text_config": inside})
    )
    found = resolve("./some-fine-tune", folder=tmp_path)
    assert (found.family.name, found.facts["images"]) == ("gemma3", False)
    assert found.facts["parameters"] == sum(p.numel() for p in model.parameters())


def test_a_flat_config_of_a_model_for_images(tmp_path: Path) -> None:
    found, _ = resolved("qwen2-vl", tmp_path)
    config = found.config
    edit(tmp_path, **config["text_config"] | {"model_type": "qwen2_vl"}, text_config=...)
    assert resolve("./some-fine-tune", folder=tmp_path).facts == found.facts


def test_templates_and_stop_tokens(tmp_path: Path) -> None:
    folder = tmp_path / "some-fine-tune"
    assert resolved("llama", tmp_path)[0].facts["chat_template"] is None
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert resolve("./some-fine-tune", folder=tmp_path).facts["chat_template"] == "tokenizer_config.json"
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    found = resolve("./some-fine-tune", folder=tmp_path)
    assert (found.facts["chat_template"], found.facts["stop_tokens"]) == ("chat_template.jinja", [2, 7])
    assert {"chat_template.jinja", "tokenizer.json"} <= dict(found.files).keys()


def test_what_keeps_a_model_from_use(tmp_path: Path) -> None:
    resolved("llama", tmp_path)
    folder = tmp_path / "some-fine-tune"
    (folder / "tokenizer.json").unlink()
    lack = resolve("./some-fine-tune", folder=tmp_path).lack
    assert lack is not None
    assert lack.startswith("it has no vocabulary (tokenizer.json or tokenizer.model or ")
    tiny_llm.save(tiny_llm.model("llama").model, folder)
    assert "it has no language-model head; give" in str(resolve("./some-fine-tune", folder=tmp_path).lack)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"num_key_value_heads": 3}, "num_key_value_heads must be a divisor of num_attention_heads 4, got 3"),
        ({"hidden_size": "32"}, "hidden_size must be a whole number above 0, got '32'"),
        ({"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": ...}, "hidden_size must be a multiple of"),
        ({"model_type": "llama5"}, "unknown model_type 'llama5', the nearest family is 'llama'; families: bert, "),
        ({"quantization_config": {"quant_method": "gptq"}}, "its weights are packed by 'gptq', which is not read here"),
    ],
)
def test_configs_that_make_no_sense(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    resolved("llama", tmp_path)
    edit(tmp_path, **changes)
    assert said in refusal(tmp_path)


WORD, WHOLE, LIST = "the name of an activation", "a whole number from 0 on", "a list of layers"
STOP = "a token's number or a list of them"
ODD = (2.5, "4", {"a": 1}, float("inf"), True)


@pytest.mark.parametrize(
    "name, key, allowed, values",
    [
        ("llama", "num_hidden_layers", "at most 10000", (10_001,)),
        ("llama", "intermediate_size", "at most 9223372036854775807", (10**400,)),
        ("llama", "hidden_act", WORD, (None, 1, [], {})),
        ("gemma3", "hidden_activation", WORD, (None, 1, [])),
        ("llama", "no_rope_layer_interval", WHOLE, (*ODD, [1], -1)),
        ("deepseek-v3", "first_k_dense_replace", WHOLE, (*ODD, [1], -1)),
        ("deepseek-v3", "n_shared_experts", WHOLE, (*ODD, [1], -1)),
        ("qwen3-moe", "mlp_only_layers", LIST, (5, *ODD)),
        ("modernbert", "eos_token_id", STOP, ODD),
    ],
)
def test_a_value_of_the_wrong_type_is_named(
    name: str, key: str, allowed: str, values: tuple[Any, ...], tmp_path: Path
) -> None:
    resolved(name, tmp_path)
    for value in values:
        edit(tmp_path, **{key: value})
        assert f"{key} must be {allowed}, got {repr(value)[:80]}; mend " in refusal(tmp_path)


def test_a_value_of_the_wrong_type_inside_a_list_is_no_bug_of_ours(tmp_path: Path) -> None:
    resolved("qwen3-moe", tmp_path)
    edit(tmp_path, mlp_only_layers=[[1]])
    assert "a value in its config.json is of the wrong type (unhashable type: 'list'); mend it" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["llama", "deepseek-v3", "qwen3-moe", "smollm3", "gemma3"])
def test_no_key_of_a_config_gives_anything_but_facts_or_a_refusal(name: str, tmp_path: Path) -> None:
    resolved(name, tmp_path)
    path = tmp_path / "some-fine-tune" / "config.json"
    good = json.loads(path.read_text())
    for key in good:
        for value in (None, "x", -1, 2.5, [], ["a"], {"a": 1}, 10**5, 10**400):
            path.write_text(json.dumps(good | {key: value}))
            try:
                found = resolve("./some-fine-tune", folder=tmp_path)
            except PlanError:
                continue
            assert forecast(found.facts)["parameters"] > 0


def test_more_dense_layers_than_there_are_leave_no_experts(tmp_path: Path) -> None:
    resolved("deepseek-v3", tmp_path)
    edit(tmp_path, first_k_dense_replace=10**5)
    assert resolve("./some-fine-tune", folder=tmp_path).facts["experts"]["layers"] == []


def test_layer_types_of_another_model(tmp_path: Path) -> None:
    resolved("gemma2", tmp_path)
    edit(tmp_path, layer_types=["sliding_attention"] * 3)
    assert "layer_types must be a list of num_hidden_layers 2 entries, got 3" in refusal(tmp_path)


def test_resolving_and_forecasting_load_nothing_heavy(tmp_path: Path) -> None:
    resolved("gemma3-vision", tmp_path)
    code = (
        "import sys; from runner.cli.main import main; "
        f"main(['models', 'resolve', {str(tmp_path / 'some-fine-tune')!r}, '-o', 'json']); "
        "print({'torch', 'transformers', 'numpy', 'ray', 'triton', 'huggingface_hub'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.endswith("\nset()\n")
