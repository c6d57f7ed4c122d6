"""`runner runs`: every run with its state, attempts, duration and failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.cli.main import main
from tests.execution import toys
from tests.execution.helpers import applied, planned, spec

Capture = pytest.CaptureFixture[str]


def _runs(tmp_path: Path, *words: str) -> int:
    return main(["runs", "--store", str(tmp_path / "store"), *words])


def test_runs_are_listed_newest_first(tmp_path: Path, capsys: Capture) -> None:
    plan, store = planned(tmp_path, spec("good"), spec("bad", precision="fp32"))

    def job(given: object, ctx: toys.Context) -> toys.Result:
        return toys.data_invalid(given, ctx) if ctx.run.startswith("bad.") else toys.write(given, ctx)

    applied(plan, store, job)
    assert _runs(tmp_path) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["RUN", "STATE", "ATTEMPTS", "TIME", "BEGAN"]
    assert first.startswith("bad.")
    assert first.endswith("DataInvalid: clip 7 holds no sound")
    assert second.startswith("good.")
    assert second.endswith("good@v1")

    assert _runs(tmp_path, "bad", "-o", "json") == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert (run["name"], run["state"], run["failure"], run["attempts"]) == ("bad", "failed", "DataInvalid", 1)
    assert run["seconds"] >= 0
    assert run["executor"] == "inline"


def test_no_run_is_no_error(tmp_path: Path, capsys: Capture) -> None:
    assert _runs(tmp_path) == 0
    assert capsys.readouterr().out.startswith("no run in ")
    assert _runs(tmp_path, "nobody", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_run_without_a_living_apply_is_interrupted(tmp_path: Path, capsys: Capture) -> None:
    _, store = planned(tmp_path, spec())
    with store.lease("toy") as lease:
        store.start_run("toy", kind="asr-transcribe", fingerprint="a" * 64, executor="inline", lease=lease)
    assert _runs(tmp_path, "-o", "json") == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert run["state"] == "interrupted"
