"""What a plan says of a training run: its forecast, and how its processes share the model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.llm import memory
from runner.llm.model.prepared import Adapter
from runner.llm.model.wish import Wish
from runner.plan import text
from runner.plan.build import build
from runner.plan.capacity import Capacity, Node
from runner.plan.step import Plan, Step
from runner.plan.training import _of_gpu, training
from runner.precision import Precision
from runner.registry.demand import RESERVE
from runner.schema.errors import JobError, PlanError
from runner.schema.jobs.llm_train import LlmTrain
from runner.schema.load import load
from runner.store.local import open_store
from tests.registry import tiny_llm
from tests.registry.test_forecast import LLAMA

CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a conversation and a DeepSpeed configuration."""
    made = tmp_path_factory.mktemp("plan")
    tiny_llm.save(tiny_llm.model("llama"), made / "model")
    (made / "chat.jsonl").write_text(json.dumps(CHAT) + "\n")
    (made / "ds.json").write_text('{"zero_optimization": {"stage": 2}}')
    return made


def plan(folder: Path, **fields: Any) -> Plan:
    base = {
        "kind": "llm-train",
        "name": "chat",
        "model": "./model",
        "method": "sft",
        "data": {"train": "chat.jsonl"},
        "train": {"max_steps": 3},
        "batch": {"seq_len": 64, "accumulate": 4},
    }
    (folder / "spec.yaml").write_text(json.dumps(base | fields))
    return build(load([str(folder / "spec.yaml")]), open_store(str(folder / "store")))


def step(folder: Path, **fields: Any) -> Step:
    (made,) = plan(folder, **fields).steps
    return made


def test_a_run_alone(folder: Path) -> None:
    made = plan(folder, compute={"memory_gb": 2})
    known = made.steps[0].estimate
    assert known["strategy"] == {"name": "none", "why": "one process: there is nothing to share"}
    forecast = known["forecast"]
    assert (forecast["memory"], forecast["fits"]) == (1_400_000_000, True)  # without what libraries take
    assert forecast["process"] >= forecast["weights"] + forecast["gradients"] + forecast["optimizer"]
    lines = text.lines(made)
    assert any("of the 1.4 GB that a process has beside 600 MB of libraries (estimate)" in line for line in lines)
    assert "    strategy: none (one process: there is nothing to share)" in lines
    json.dumps(text.to_json(made))


def test_the_plainest_strategy_that_fits_is_explained(folder: Path) -> None:
    """The tiny model needs 0.5 MB in a process of its own, and less where it is shared."""
    roomy = step(folder, compute={"workers": 2, "memory_gb": 1}).estimate["strategy"]
    assert (roomy["name"], roomy["why"]) == ("ddp", "ddp needs at least 533 kB of the 400 MB that a process has")
    adapter = step(folder, compute={"workers": 2, "memory_gb": 1}, adapter={"type": "lora"}, quantize="nf4")
    assert adapter.estimate["forecast"]["adapter"] == "lora:16"
    own = step(folder, compute={"workers": 2, "memory_gb": 1}, distribution={"deepspeed": "ds.json"})
    assert own.estimate["strategy"]["name"] == "zero2"


def test_what_does_not_fit_is_said(folder: Path) -> None:
    tight = plan(folder, compute={"workers": 2, "memory_gb": 0.6003})
    known = tight.steps[0].estimate
    assert (known["strategy"]["name"], known["forecast"]["fits"]) == ("fsdp2", False)
    assert any(
        "of the 300 kB that a process has beside 600 MB of libraries, more than there is (estimate)" in line
        for line in text.lines(tight)
    )


def test_without_a_model_there_is_no_forecast(folder: Path) -> None:
    sizes = {"type": "llama", "hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "feed_forward": 48}
    known = step(folder, model=None, architecture=sizes, compute={"workers": 2}).estimate
    assert "forecast" not in known
    assert known["strategy"]["why"] == "the plainest of ddp, fsdp2; the forecast of its memory is not known yet"


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"distribution": {"strategy": "zero3"}}, "'zero3' needs several processes: set compute.workers to 2 or more"),
        (
            {"distribution": {"strategy": "zero3", "deepspeed": "ds.json"}, "compute": {"workers": 2}},
            "the file of distribution.deepspeed says stage 2: set strategy to zero2, or change the stage",
        ),
        (
            {"distribution": {"strategy": "zero2"}, "train": {"max_steps": 3, "optimizer": "adafactor"}}
            | {"compute": {"workers": 2}},
            "'zero2' cannot train with train.optimizer 'adafactor'",
        ),
    ],
)
def test_what_cannot_be_had_is_a_problem_of_the_spec(folder: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=rf"spec\.yaml:\d+:\d+: distribution: .*{message}"):
        plan(folder, **fields)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "adamw_8bit", "paged_adamw_8bit", "sgd"])
@pytest.mark.parametrize(
    "fields",
    [
        {"precision": "bf16"},
        {"precision": "fp32", "batch": {"seq_len": 4096, "rows": 2}, "optimize": {"checkpointing": "off"}},
        {"precision": "bf16", "adapter": {"type": "lora", "r": 8}, "tokens": {"add": ["<tool>"]}},
        {"precision": "bf16", "adapter": {"type": "lora"}, "quantize": "nf4", "optimize": {"loss_chunking": "off"}},
        {"precision": "bf16", "distribution": {"strategy": "fsdp2", "offload": "all"}, "compute": {"workers": 4}},
        {"precision": "bf16", "optimize": {"checkpointing": "required"}, "compute": {"workers": 8}},
    ],
    ids=["whole", "fp32", "tokens", "nf4", "offload", "team"],
)
def test_the_plan_forecasts_what_the_run_does(
    fields: dict[str, Any], optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Llama 3.1 8B: what the plan says fits is what the run lets begin, with the same figures and strategy."""
    patch = {"patch": "linear_cross_entropy", "wanted": True}
    facts = LLAMA | {"max_positions": 131072, "embedding_parameters": 2 * 128256 * 4096, "patches": [patch]}
    given: dict[str, Any] = {"name": "chat", "model": "./model", "method": "sft", "data": {"train": "chat.jsonl"}}
    spec = LlmTrain.model_validate(
        {"kind": "llm-train"} | given | {"train": {"max_steps": 3, "optimizer": optimizer}} | fields
    )
    wish = Wish(
        facts=facts,
        family=None,  # type: ignore[arg-type]  # the forecast looks at facts alone
        tokenizer=None,
        precision=Precision(name=spec.precision, why=""),  # type: ignore[arg-type]  # none is auto
        optimize=spec.optimize.model_dump(include={"loss_chunking"}),
        **spec.batch.model_dump(include={"seq_len", "rows"}),
        adapter=None if spec.adapter.type == "none" else Adapter(type=spec.adapter.type, r=spec.adapter.r),
        added=tuple(spec.tokens.add),
        quantize=spec.quantize,
        checkpointing=spec.optimize.checkpointing,
        optimizer=optimizer,
        strategy=spec.distribution.strategy,
        offload_state=spec.distribution.offload,
    )
    monkeypatch.setattr("runner.ranks.size", lambda: spec.compute.workers)
    model: Any = SimpleNamespace(facts=facts)
    for gigabytes in (16, 40, 80, 100, 140, 200):
        compute = spec.compute.model_dump(mode="json") | {"memory_gb": gigabytes}
        try:
            planned = training(spec.training() or {}, compute=compute, inputs=(), models=(model,))
        except PlanError as refused:
            with pytest.raises(JobError, match=re.escape(str(refused))):
                memory.settle(wish.shape, memory=gigabytes * 10**9)
            continue
        forecast = planned["forecast"]
        try:
            settled = memory.settle(wish.shape, memory=forecast["memory"])
        except JobError as error:
            assert not forecast["fits"], error
        else:
            assert forecast["fits"]
            assert settled.forecast["needs"] == forecast["process"]
            assert settled.choice.name == planned["strategy"]["name"]


def test_memory_of_a_gpu_by_its_type(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert [_of_gpu(kind) for kind in ("A100-80G", "A100", "H200", "L40S", "unheard-of", "")] == [
        80 * 10**9,
        40 * 10**9,
        141 * 10**9,
        48 * 10**9,
        None,
        None,
    ]
    node = Node(cpus=8, memory_gb=64, gpus={"H100": 2})
    monkeypatch.setattr("runner.plan.training.local_capacity", lambda: Capacity(nodes=(node,)))
    found = step(folder, compute={"workers": 2, "gpus": 1}).estimate["forecast"]
    assert (found["memory"], found["precision"]) == (80 * 10**9 - RESERVE, "bf16")
    found = step(folder, compute={"workers": 2}).estimate["forecast"]
    assert (found["memory"], found["precision"]) == (32 * 10**9 - RESERVE, "fp32")
