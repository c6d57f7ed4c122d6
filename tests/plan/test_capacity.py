"""Whether a step fits, and the words when it does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runner.plan import capacity
from runner.plan.capacity import Capacity, Node
from runner.plan.step import Step
from runner.schema.compute import Compute

LAPTOP = Capacity(nodes=(Node(cpus=4, memory_gb=16),), what="this machine")
CLUSTER = Capacity(
    nodes=(Node(cpus=32, memory_gb=256, gpus={"A100-80G": 2}), Node(cpus=32, memory_gb=256, gpus={"H200": 2}))
)


def _step(**compute: Any) -> Step:
    spec = {"compute": Compute(**compute).model_dump()}
    return Step(
        name="a",
        kind="k",
        file="f",
        line=1,
        folder="/",
        spec=spec,
        inputs=(),
        fingerprint="0",
        action="create",
        reasons=(),
    )


@pytest.mark.parametrize(
    ("compute", "where"),
    [
        ({}, LAPTOP),
        ({"cpus": 4, "memory_gb": 16.0}, LAPTOP),
        ({"workers": 9}, LAPTOP),
        ({"cpus": 1, "workers": 4}, LAPTOP),
        ({"gpus": 2.0, "accelerator": "A100"}, CLUSTER),
        ({"gpus": 1.0, "workers": 4}, CLUSTER),
        ({"gpus": 0.25, "workers": 16}, CLUSTER),
        ({"accelerator": "h200"}, CLUSTER),
    ],
    ids=str,
)
def test_what_fits(compute: dict[str, Any], where: Capacity) -> None:
    assert capacity.check(_step(**compute), where) is None


@pytest.mark.parametrize(
    ("compute", "where", "words"),
    [
        ({"cpus": 5}, LAPTOP, "a: needs 5 CPUs, this machine has no GPU, 4 CPUs, 16 GB memory"),
        ({"memory_gb": 17.0}, LAPTOP, "a: needs 17 GB memory, "),
        ({"gpus": 0.5}, LAPTOP, "a: needs 0.5 x GPU, this machine has no GPU"),
        (
            {"gpus": 4.0, "accelerator": "H100"},
            CLUSTER,
            "a: needs 4 x H100, the cluster has 2 x A100-80G, 2 x H200, 64 CPUs",
        ),
        ({"gpus": 3.0}, CLUSTER, "on 2 machines"),
        ({"gpus": 1.0, "accelerator": "A100-40G"}, CLUSTER, "1 x A100-40G"),
        ({"gpus": 1.0, "workers": 5}, CLUSTER, "1 x GPU for each of 5 workers"),
        ({"gpus": 0.4, "workers": 9}, CLUSTER, "0.4 x GPU for each of 9 workers"),
        ({"gpus": 1.5}, CLUSTER, "must be whole, got 1.5"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said_with_figures(compute: dict[str, Any], where: Capacity, words: str) -> None:
    assert words in (capacity.check(_step(**compute), where) or "")


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100-80G"),
        ("NVIDIA H100 80GB HBM3", "H100-80G"),
        ("NVIDIA H200", "H200"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA RTX A6000", "RTX-A6000"),
    ],
)
def test_gpu_types(model: str, kind: str) -> None:
    assert capacity.gpu_type(model) == kind


def test_this_machine_has_cpus_and_memory() -> None:
    (node,) = capacity.local_capacity().nodes
    assert 1 <= node.cpus <= (os.cpu_count() or 1)
    assert node.memory_gb > 0.5


def test_limits_and_devices_of_a_container_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text("2000000000\n")
    monkeypatch.setattr(capacity, "CGROUPS", tmp_path)
    (node,) = capacity.local_capacity().nodes
    assert (node.cpus, node.memory_gb) == (1, 2.0)


def test_gpus_without_a_device_file_or_hidden_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, minor in (("0000:01:00.0", 0), ("0000:02:00.0", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "information").write_text(f"Model: \t\t NVIDIA H200\nDevice Minor: \t {minor}\n")
    monkeypatch.setattr(capacity, "DRIVER", tmp_path)
    monkeypatch.setattr(capacity, "DEVICES", str(tmp_path / "nvidia"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert capacity.local_capacity().nodes[0].gpus == {}
    for minor in (0, 1):
        (tmp_path / f"nvidia{minor}").touch()
    assert capacity.local_capacity().nodes[0].gpus == {"H200": 2}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert capacity.local_capacity().nodes[0].gpus == {"H200": 1}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert capacity.local_capacity().nodes[0].gpus == {}
