"""What `model:` of llm-train may lead to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.plan.step import Step
from runner.schema.errors import PlanError
from tests.plan.house import House
from tests.registry import tiny_llm

CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A house with a conversation."""
    made = House(tmp_path)
    (made.folder / "chat.jsonl").write_text(json.dumps(CHAT) + "\n")
    return made


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model."""
    return tiny_llm.save(tiny_llm.model("llama"), tmp_path_factory.mktemp("llama") / "saved")


def publish(house: House, name: str, files: Mapping[str, bytes]) -> None:
    """Publish ``files``, by their paths in an artifact, as what a run called ``name`` made."""
    (step,) = house.plan(house.spec(name=name)).steps
    house.publish(step, files=files)


def training(model: str, **fields: Any) -> dict[str, Any]:
    sizes = {"data": {"train": "chat.jsonl"}, "train": {"max_steps": 1}}
    return {"kind": "llm-train", "name": "chat", "model": model, "method": "sft", **sizes} | fields


def step(house: House, model: str) -> Step:
    (made,) = house.plan(training(model, compute={"memory_gb": 1})).steps
    return made


def test_a_model_is_found_in_what_another_run_made(house: House, llama: Path) -> None:
    publish(house, "base", {f"model/{file.name}": file.read_bytes() for file in llama.iterdir()})
    for reference in ("artifact:base", "artifact:base#model", "artifact:base@v1"):
        found = step(house, reference)
        (model,) = (entry for entry in found.inputs if entry.field == "model")
        assert (found.family, Path(str(model.path)).parts[-2:]) == ("llama", ("files", "model"))
        assert found.estimate["forecast"]["parameters"] > 0


@pytest.mark.parametrize("model", ["artifact:base", "artifact:base#adapter", "./adapter"])
def test_an_adapter_is_no_model(house: House, model: str) -> None:
    publish(house, "base", {"adapter/adapter_config.json": b"{}"})
    (house.folder / "adapter").mkdir()
    (house.folder / "adapter" / "adapter_config.json").write_text("{}")
    told = r"is an adapter, which is no model by itself; give the model that it was trained beside \(its adapter_config"
    with pytest.raises(PlanError, match=told):
        step(house, model)


@pytest.mark.parametrize(
    ("adapter", "reference", "told"),
    [
        ("lora", "artifact:first", "'first' will have no 'model': it makes an adapter, which is no model by itself"),
        ("lora", "artifact:first#model", "'first' will have no 'model': it makes an adapter, which is no model"),
        ("none", "artifact:first#adapter", "'first' will have no 'adapter': it trains all weights and makes a model"),
    ],
)
def test_a_plan_knows_what_its_own_runs_make(
    house: House, llama: Path, adapter: str, reference: str, told: str
) -> None:
    first = training(str(llama), name="first", adapter={"type": adapter})
    with pytest.raises(PlanError, match=rf"set\.yaml:\d+:\d+: model\.id: {told}"):
        house.plan(first, training(reference, name="second"))
    good = "artifact:first" if adapter == "none" else str(llama)
    made, _ = house.plan(first, training(good, name="second")).steps
    assert (made.name, made.action) == ("first", "create")
