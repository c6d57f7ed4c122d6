"""The DeepSpeed configurations that are made, and what of the user's own goes over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from runner import ranks
from runner.kernels import patching
from runner.kernels.ledger import Wanted
from runner.llm.distribution import config, gather, strategy
from runner.llm.distribution.config import Sizes
from runner.llm.distribution.strategy import Strategy
from runner.registry.strategy import Choice, Name, Offload
from runner.schema.errors import JobError
from tests.llm.distribution import teams
from tests.registry import tiny_llm

SIZES = Sizes(parameters=8_000_000_000, trainable=40_000_000, hidden=4096, layers=32)


def generated(**changes: Any) -> dict[str, Any]:
    wanted: dict[str, Any] = {"stage": 3, "offload": "none", "device": "cuda", "precision": "bf16", "sizes": SIZES}
    return config.generated(**wanted | changes)


def test_buckets_follow_the_model() -> None:
    zero = generated()["zero_optimization"]
    assert zero["reduce_bucket_size"] == 40_000_000
    assert zero["stage3_prefetch_bucket_size"] == 50_000_000
    assert zero["stage3_max_live_parameters"] == 2 * 250_000_000
    assert zero["overlap_comm"]
    assert "offload_optimizer" not in zero
    small = generated(sizes=Sizes(parameters=1000, trainable=1000, hidden=8, layers=2), stage=2, device="cpu")
    assert small["zero_optimization"] == {
        "stage": 2,
        "contiguous_gradients": True,
        "overlap_comm": False,
        "reduce_bucket_size": 1000,
        "allgather_bucket_size": 1000,
    }


def test_precision_is_torchs_autocast() -> None:
    assert generated()["torch_autocast"]["dtype"] == "bfloat16"
    assert "torch_autocast" not in generated(precision="fp32")
    assert not {"bf16", "fp16"} & set(generated())


def test_offloading() -> None:
    zero = generated(offload="all")["zero_optimization"]
    assert zero["offload_optimizer"] == zero["offload_param"] == {"device": "cpu", "pin_memory": True}
    assert "offload_param" not in generated(offload="optimizer")["zero_optimization"]


def test_the_users_values_win_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    own = {
        "bf16": {"enabled": "auto"},
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
        "steps_per_print": 5,
        "zero_optimization": {"stage": 3, "reduce_bucket_size": 7, "stage3_prefetch_bucket_size": "auto"},
    }
    path.write_text(json.dumps(own))
    made, base = config.merged(generated(), config.given(path)), generated()
    assert made["steps_per_print"] == 5
    assert made["zero_optimization"] == base["zero_optimization"] | {"reduce_bucket_size": 7}
    assert {key: made[key] for key in base if key not in own} == {key: base[key] for key in base if key not in own}
    assert "bf16" not in made


@pytest.mark.parametrize(
    "own, message",
    [
        ({"optimizer": {"type": "Adam"}}, "sets 'optimizer', which is the spec's train.optimizer: take it out"),
        ({"gradient_clipping": 2.0}, "sets 'gradient_clipping', which is the spec's train.clip_norm"),
        ({"bf16": {"enabled": True}}, "sets 'bf16', which is the spec's precision"),
        ({"zero_optimisation": {}}, "has 'zero_optimisation', which DeepSpeed does not know: known are activation_"),
    ],
)
def test_what_the_spec_says_is_not_the_files_to_say(own: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(own))
    with pytest.raises(JobError, match=message) as caught:
        config.given(path)
    assert caught.value.failure == "Infeasible"


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A team of two, as far as it is asked for its size."""
    monkeypatch.setattr(ranks, "size", lambda: 2)


def begun(name: Name, *, offload: Offload = "none", device: str = "cpu", given: Path | None = None) -> Strategy:
    ready = teams.ready(tiny_llm.model("llama"), Choice(name=name, why="a test", offload=offload))
    return strategy.begin(ready, device=device, given=given)


def test_strategies_say_what_they_are(two: None) -> None:
    plain = begun("ddp")
    assert (plain.name, plain.shared, plain.arguments, plain.identity) == ("ddp", False, {}, "whole")
    alone = begun("none")
    assert (alone.name, alone.identity) == ("none", "whole")
    assert [line.applied for line in alone.lines] == [False]
    shared = begun("fsdp2", offload="all")
    assert shared.shared
    assert shared.arguments["fsdp_config"]["transformer_layer_cls_to_wrap"] == ["LlamaDecoderLayer"]
    assert not shared.arguments["fsdp_config"]["cpu_offload"]
    assert [(line.what, line.applied) for line in shared.lines] == [("distribution", True), ("offload", False)]
    assert shared.lines[1].why == "the model lies in the memory of the host"
    on_gpus = begun("fsdp2", offload="all", device="cuda")
    assert on_gpus.arguments["fsdp_config"]["cpu_offload"]
    assert on_gpus.lines[1].applied


def test_what_cannot_be_had_is_infeasible(two: None, tmp_path: Path) -> None:
    own = tmp_path / "ds.json"
    own.write_text("{}")
    bad = tmp_path / "bad.json"
    bad.write_text('{"zero_optimization": {"reduce_bucket": 7}}')
    cases: tuple[tuple[Name, Path, str], ...] = (
        ("zero2", bad, "DeepSpeed refuses zero_optimization.reduce_bucket = 7: Extra inputs are not"),
        ("ddp", own, "name its zero_optimization.stage, 2 or 3"),
    )
    for name, given, message in cases:
        with pytest.raises(JobError, match=message) as caught:
            begun(name, given=given)
        assert caught.value.failure == "Infeasible"


def test_zero3_runs_adapters_by_pefts_own_forward(two: None) -> None:
    def begin(wanted: Wanted, name: Name) -> Any:
        adapted = get_peft_model(tiny_llm.model("llama"), LoraConfig(r=2, target_modules=["q_proj"]))
        applied = patching.apply(adapted, {"attention": "preferred", "lora_linear": wanted})
        ready = teams.ready(adapted, Choice(name=name, why="a test"), applied=applied)
        made = strategy.begin(ready, device="cpu")
        assert [one.what for one in made.lines] == ["distribution"]
        (line,) = applied.ledger.of("lora_linear")
        return line.applied, "lora_linear" in applied.found, line.why

    assert begin("required", "fsdp2")[:2] == (True, True)
    assert begin("off", "zero3")[:2] == (False, False)
    applied, found, why = begin("preferred", "zero3")
    assert (applied, found) == (False, False)
    assert why.startswith("zero3: DeepSpeed brings a module's weights when it is called")
    with pytest.raises(JobError, match="quantised_lora is required and distribution") as caught:
        begin("required", "zero3")
    assert caught.value.failure == "Infeasible"


def test_whole_weights_have_the_models_own_names() -> None:
    tied = tiny_llm.model("llama", tie_word_embeddings=True)
    whole = gather.full_state(tied)
    assert whole is not None
    assert whole.keys() == tied.state_dict().keys()
    assert whole["lm_head.weight"] is whole["model.embed_tokens.weight"]
    for name, one in tied.state_dict().items():
        assert torch.equal(whole[name], one)
        assert whole[name].data_ptr() != one.data_ptr()
    adapted = get_peft_model(tiny_llm.model("llama"), LoraConfig(r=2, target_modules=["q_proj"]))
    part = gather.full_state(adapted)
    assert part is not None
    assert part.keys() == {name for name, one in adapted.named_parameters() if one.requires_grad}
