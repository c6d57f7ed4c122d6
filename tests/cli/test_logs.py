"""`runner logs`: the log, the events, and following both to the end of the run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.cli.main import main
from runner.execution import runs
from tests.e2e.helpers import ROOT, RUNNER, environment
from tests.execution import toys
from tests.execution.helpers import apply_one, folder_with, planned, spec

Capture = pytest.CaptureFixture[str]


def _logs(tmp_path: Path, *words: str) -> int:
    return main(["logs", *words, "--store", str(tmp_path / "store")])


def test_the_log_of_a_run_and_of_a_name(tmp_path: Path, capsys: Capture) -> None:
    result, _ = apply_one(tmp_path, toys.write)
    assert _logs(tmp_path, "toy") == 0
    by_name = capsys.readouterr().out
    assert "printed by the job" in by_name
    assert "told by the job" in by_name
    assert _logs(tmp_path, str(result.run)) == 0
    assert capsys.readouterr().out == by_name


def test_events_in_words_and_as_json(tmp_path: Path, capsys: Capture) -> None:
    apply_one(tmp_path, toys.write)
    assert _logs(tmp_path, "toy", "--events") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split(maxsplit=2)[1:] == ["state", "done, toy@v1"]
    assert any("sum = 90" in line for line in lines)
    assert _logs(tmp_path, "toy", "-o", "json") == 0
    stream = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert stream[-1]["state"] == "succeeded"


def test_following_ends_with_the_run(tmp_path: Path) -> None:
    folder_with(tmp_path, spec())
    _, store = planned(tmp_path, spec())
    words = ["-m", "tests.execution.apply_toy", "slow_write", str(tmp_path / "spec.yaml"), str(store.root), "--local"]
    apply = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
    while not runs.every(store):
        time.sleep(0.05)
    follow = subprocess.run(
        [*RUNNER, "logs", "toy", "-f", "--store", str(store.root)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "told by the job" in follow.stdout
    assert apply.wait(timeout=30) == 0


@pytest.mark.parametrize("word", ["toi", "toy.00000000.9", "../../etc"])
def test_an_unknown_run_is_2_with_a_hint(tmp_path: Path, capsys: Capture, word: str) -> None:
    apply_one(tmp_path, toys.write)
    assert _logs(tmp_path, word) == 2
    error = capsys.readouterr().err
    assert f"no run or name {word!r}" in error
    assert "did you mean 'toy" in error or "`runner runs` lists them" in error
