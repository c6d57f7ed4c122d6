"""`runner cancel`: a run ends cleanly, and one whose apply was killed gets its end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.cli.main import main
from runner.execution import runs
from tests.e2e.helpers import ROOT, environment
from tests.execution import toys
from tests.execution.helpers import apply_one, folder_with, planned, spec

Capture = pytest.CaptureFixture[str]


def _cancel(tmp_path: Path, *words: str) -> int:
    return main(["cancel", *words, "--store", str(tmp_path / "store")])


def _start(tmp_path: Path) -> subprocess.Popen[str]:
    folder_with(tmp_path, spec())
    _, store = planned(tmp_path, spec())
    words = ["-m", "tests.execution.apply_toy", "sleep", str(tmp_path / "spec.yaml"), str(store.root), "--local"]
    apply = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
    while not (found := runs.every(store)) or found[0].progress is None:
        time.sleep(0.05)
    return apply


def test_a_running_run_ends(tmp_path: Path, capsys: Capture) -> None:
    apply = _start(tmp_path)
    assert _cancel(tmp_path, "toy") == 0
    assert capsys.readouterr().out.endswith(" is cancelled\n")
    said, _ = apply.communicate(timeout=30)
    assert apply.returncode == 130
    assert said.splitlines()[-1] == "toy: cancelled"


def test_the_run_of_a_killed_apply_gets_its_end(tmp_path: Path, capsys: Capture) -> None:
    apply = _start(tmp_path)
    apply.kill()
    apply.communicate()
    _, store = planned(tmp_path, spec())
    (run,) = runs.every(store)
    assert run.state == "interrupted"
    assert _cancel(tmp_path, run.id, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"run": run.id, "state": "cancelled", "was_over": True}


def test_a_run_that_is_over_stays_as_it_is(tmp_path: Path, capsys: Capture) -> None:
    apply_one(tmp_path, toys.write)
    assert _cancel(tmp_path, "toy") == 0
    assert capsys.readouterr().out.endswith(" is succeeded already\n")


def test_an_unknown_run_is_2(tmp_path: Path, capsys: Capture) -> None:
    assert _cancel(tmp_path, "nobody") == 2
    assert "there is none yet" in capsys.readouterr().err
