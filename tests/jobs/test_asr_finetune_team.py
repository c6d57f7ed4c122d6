"""`asr-finetune` in several processes: the steps of one, the same bytes after a kill, with and without ray."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.e2e.helpers import alive, manifest, runner, start
from tests.jobs.helpers import Ran, apply, ran
from tests.jobs.test_asr_finetune import data, spec

TWO = {"cpus": 1, "workers": 2}
# masks, dropout and skipped layers differ from process to process
RANDOM = {
    "train": {"steps": 24, "learning_rate": 0.01, "dropout": 0.1, "layerdrop": 0.2},
    "augment": {"noise_snr_db": [10.0, 30.0], "speed": 0.1, "join": 2, "time_masks": 0.1},
    "evaluation": {"every_steps": 5},
}


def measured(made: Ran) -> list[list[Any]]:
    """Rows of the report: step, loss, validation loss, rates, blanks, gradient norm, learning rate."""
    report = json.loads((made.files.parent / "report.json").read_text())
    rows: list[list[Any]] = next(t["rows"] for t in report["tables"] if t["title"] == "Measurements")
    return rows


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """25 clips in batches of 3: the last batch of an epoch is one clip, so that a process has none."""
    data(tmp_path, train=25)
    fields = {
        "train": {"epochs": 1, "learning_rate": 0.003, "accumulate": 3},
        "batch": {"seconds": 60.0, "clips": 3},
        "evaluation": {"every_steps": 1},
    }
    both = []
    for store, compute in (("one", {"cpus": 1}), ("two", TWO)):
        (result,), kept = apply(tmp_path, spec(compute=compute, **fields), store=store)
        assert result.action == "created", result.message
        both.append(ran(result, kept))
    one, two = both
    assert two.manifest["fingerprint"] == one.manifest["fingerprint"]
    assert len(measured(two)) == 3
    for mine, its in zip(measured(two), measured(one), strict=True):
        assert mine == pytest.approx(its, rel=1e-3)
    weights, others = (load_file(made.files / "model" / "model.safetensors") for made in both)
    for name, weight in weights.items():
        assert others[name] == pytest.approx(weight, abs=3e-4), name
    assert [line["why"] for line in two.manifest["ledger"] if line["what"] == "processes"] == [
        "2 processes share the clips of each batch and add up their gradients"
    ]
    assert "processes" not in {line["what"] for line in one.manifest["ledger"]}


@pytest.mark.slow
def test_a_kill_leaves_no_trace_and_no_process(tmp_path: Path) -> None:
    """Two processes on their own, killed and resumed, and two on ray make the same bytes; one may end the work of
    two."""
    data(tmp_path)
    two, one = (json.dumps(spec(compute={**TWO, "workers": workers}, **RANDOM)) for workers in (2, 1))
    (tmp_path / "two.yaml").write_text(two)
    (tmp_path / "one.yaml").write_text(one)
    runner("apply", "two.yaml", "--store", "whole", "--local", cwd=tmp_path)
    whole = manifest(tmp_path / "whole", "tones")["digest"]

    killed(tmp_path, "broken")
    said = runner("apply", "two.yaml", "--store", "broken", "--local", cwd=tmp_path).stdout
    assert "goes on after step" in said
    assert "instead of" not in said
    assert manifest(tmp_path / "broken", "tones")["digest"] == whole
    assert manifest(tmp_path / "broken", "tones")["run"]["attempts"] == 2

    killed(tmp_path, "fewer")
    said = runner("apply", "one.yaml", "--store", "fewer", "--local", cwd=tmp_path).stdout
    assert "with 1 processes instead of 2: the same steps with other random masks" in said
    report = json.loads((tmp_path / "fewer" / "tones" / "v1" / "report.json").read_text())
    assert any("2, then 1 processes shared the steps" in note for note in report["notes"])

    runner("apply", "two.yaml", "--store", "ray", cwd=tmp_path, timeout=600)
    on_ray = manifest(tmp_path / "ray", "tones")
    assert (on_ray["run"]["executor"], on_ray["digest"]) == ("ray", whole)


def killed(folder: Path, store: str) -> None:
    """Kill -9 an apply between two checkpoints; its processes end with it."""
    mark = f"{folder.name}-{store}"
    process = start("apply", "two.yaml", "--store", store, "--local", cwd=folder, mark=mark)
    until(lambda: len(list(folder.glob(f"{store}/.runs/*/checkpoints/training/step-1*"))) > 0)
    assert len(alive(mark)) == 3
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    until(lambda: not alive(mark))


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)
