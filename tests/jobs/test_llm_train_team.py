"""`llm-train` in two processes, by each strategy: the steps of one, the same bytes on ray, and no trace of a kill."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.e2e.helpers import alive, manifest, runner, start
from tests.jobs.helpers import Ran, apply, ran
from tests.jobs.test_asr_finetune_team import until
from tests.jobs.test_llm_train import adapter, chats, spec

TWO = {"cpus": 1, "workers": 2}
FIELDS = {
    "batch": {"seq_len": 64, "accumulate": 4},
    "train": {"max_steps": 12, "learning_rate": 0.01},
    "evaluation": {"every_steps": 3, "prompts": ["diga rio"], "prompt_tokens": 8},
    "optimize": {"checkpointing": "required"},  # which each strategy has its own way with
}


def data(folder: Path) -> None:
    chats(folder)
    chats(folder, "held.jsonl", count=9, shift=3)  # an odd number: one process has more to measure


def carried(folder: Path, store: str, **fields: Any) -> Ran:
    (result,), kept = apply(folder, spec(**{**FIELDS, **fields}), store=store)
    assert result.action == "created", result.message
    return ran(result, kept)


def rows(made: Ran) -> list[list[float]]:
    lines = (made.files / "training.jsonl").read_text().splitlines()
    return [[one["step"], one["loss"], one["grad_norm"]] for one in map(json.loads, lines)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """What one process makes of it."""
    folder = tmp_path_factory.mktemp("alone")
    data(folder)
    return carried(folder, "store")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero2", "zero3"])
def test_two_processes_take_the_steps_of_one(name: str, alone: Ran, tmp_path: Path) -> None:
    """On their own and placed by ray."""
    data(tmp_path)
    shared = {"compute": TWO, "distribution": {"strategy": name}}
    made = carried(tmp_path, "store", **shared)
    assert made.manifest["fingerprint"] == alone.manifest["fingerprint"]
    assert len(rows(alone)) == 12
    for mine, its in zip(rows(made), rows(alone), strict=True):
        assert mine == pytest.approx(its, rel=1e-3)
    figures = (made.manifest["metrics"], alone.manifest["metrics"])
    assert figures[0]["validation_loss"] == pytest.approx(figures[1]["validation_loss"], rel=1e-3)
    weights, others = (load_file(one.files / "model" / "model.safetensors") for one in (made, alone))
    assert weights.keys() == others.keys()
    for key, weight in weights.items():
        assert weight == pytest.approx(others[key], abs=2e-3), key
    (line,) = [line for line in made.manifest["ledger"] if line["what"] == "distribution"]
    assert (line["where"], line["applied"]) == (name, True)

    (tmp_path / "two.yaml").write_text(json.dumps(spec(**{**FIELDS, **shared})))
    runner("apply", "two.yaml", "--store", "ray", cwd=tmp_path, timeout=600)
    on_ray = manifest(tmp_path / "ray", "base")
    assert (on_ray["run"]["executor"], on_ray["digest"]) == ("ray", made.manifest["digest"])


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["fsdp2", "zero3"])
def test_an_adapter_on_rounded_weights_is_that_of_one_process(name: str, tmp_path: Path) -> None:
    data(tmp_path)
    made = []
    for store, more in (("one", {}), ("two", {"compute": TWO, "distribution": {"strategy": name}})):
        tuned = adapter(**{**FIELDS, "quantize": "int8", **more})
        results, kept = apply(tmp_path, spec(), tuned, store=store)
        assert [one.action for one in results] == ["created", "created"], results[-1].message
        made.append(ran(results[-1], kept))
    for mine, its in zip(*map(rows, made), strict=True):
        assert mine == pytest.approx(its, rel=1e-3)
    weights, others = (load_file(one.files / "adapter" / "adapter_model.safetensors") for one in made)
    assert weights.keys() == others.keys()
    for key, weight in weights.items():
        assert weight == pytest.approx(others[key], abs=2e-3), key


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["fsdp2", "zero3"])
def test_a_run_that_lost_a_process_goes_on_by_itself(name: str, tmp_path: Path) -> None:
    data(tmp_path)
    fields = {**FIELDS, "train": {"max_steps": 60, "learning_rate": 0.01}, "distribution": {"strategy": name}}
    (tmp_path / "two.yaml").write_text(json.dumps(spec(**fields, compute=TWO)))
    mark = f"lost-{name}-{os.getpid()}"
    process = start("apply", "two.yaml", "--store", "broken", "--local", cwd=tmp_path, mark=mark)
    until(lambda: len(list(tmp_path.glob("broken/.runs/*/checkpoints/training/step-*"))) > 0)
    second = max(one for one in alive(mark) if one != process.pid)
    os.kill(second, signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "goes on after step" in said
    broken = manifest(tmp_path / "broken", "base")
    assert broken["run"]["attempts"] == 2
    runner("apply", "two.yaml", "--store", "whole", "--local", cwd=tmp_path)
    assert broken["digest"] == manifest(tmp_path / "whole", "base")["digest"]
