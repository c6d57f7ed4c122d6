"""Ctrl-C, SIGTERM and kill -9 of an apply: it ends, nothing of it is left, and the next apply goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.execution import cluster, runs
from runner.execution.runs import Run
from runner.store.local import Store, open_store
from tests.e2e.helpers import ROOT, alive, environment, in_session
from tests.execution import toys
from tests.execution.helpers import applied, folder_with, planned, spec

EXECUTORS = [
    pytest.param(["--local"], id="inline"),
    pytest.param([], id="ray", marks=pytest.mark.slow),
]


def _start(tmp_path: Path, toy: str, words: list[str]) -> subprocess.Popen[str]:
    """An apply as from a terminal: its own process group; what it starts is found by the mark."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.execution.apply_toy", toy, str(tmp_path / "spec.yaml"), _place(tmp_path), *words],
        cwd=ROOT,
        env=environment(RUNNER_TEST_MARK=tmp_path.name),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _place(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def _wait(what: Callable[[], bool], *, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _works(store: Store) -> bool:
    found = runs.every(store)
    return bool(found) and found[0].progress is not None


def _only(store: Store) -> Run:
    (run,) = runs.every(store)
    return run


@pytest.mark.parametrize("words", EXECUTORS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_apply_and_the_next_one_resumes(
    tmp_path: Path, words: list[str], number: signal.Signals
) -> None:
    folder_with(tmp_path, spec())
    store = open_store(_place(tmp_path))
    apply = _start(tmp_path, "resumable", words)
    _wait(lambda: _works(store))
    os.killpg(apply.pid, number)  # as a terminal does: to the whole group
    said, _ = apply.communicate(timeout=30)
    assert apply.returncode == 130, said
    assert "Traceback" not in said
    _wait(lambda: not alive(tmp_path.name) and not in_session(apply.pid), within_s=5)
    assert (_only(store).state, store.holder("toy")) == ("cancelled", None)
    plan, store = planned(tmp_path, spec())
    (result,) = applied(plan, store, toys.resumable)
    assert (result.action, result.attempts) == ("created", 2)


@pytest.mark.parametrize("words", EXECUTORS)
def test_a_deaf_job_is_interrupted_all_the_same(tmp_path: Path, words: list[str]) -> None:
    folder_with(tmp_path, spec())
    store = open_store(_place(tmp_path))
    apply = _start(tmp_path, "deaf", words)
    _wait(lambda: _works(store))
    apply.send_signal(signal.SIGINT)
    said, _ = apply.communicate(timeout=30)
    assert apply.returncode == 130, said
    _wait(lambda: not alive(tmp_path.name) and not in_session(apply.pid), within_s=5)
    assert _only(store).state == "cancelled"


@pytest.mark.parametrize("words", EXECUTORS)
def test_a_second_signal_stops_at_once_and_leaves_no_process(tmp_path: Path, words: list[str]) -> None:
    folder_with(tmp_path, spec())
    store = open_store(_place(tmp_path))
    apply = _start(tmp_path, "deaf_with_child", words)
    _wait(lambda: _works(store))
    apply.send_signal(signal.SIGINT)
    time.sleep(0.3)
    apply.send_signal(signal.SIGINT)
    began = time.monotonic()
    said, _ = apply.communicate(timeout=30)
    assert apply.returncode == 130, said
    assert time.monotonic() - began < 4
    _wait(lambda: not alive(tmp_path.name) and not in_session(apply.pid), within_s=5)
    assert (_only(store).state, store.holder("toy")) == ("cancelled", None)


@pytest.mark.slow
def test_ctrl_c_while_ray_shuts_down_changes_nothing(tmp_path: Path) -> None:
    """Not SIGTERM: ray's C++ side gives that one back to the system for these two seconds."""
    folder_with(tmp_path, spec())
    store = open_store(_place(tmp_path))
    apply = _start(tmp_path, "write", [])
    _wait(lambda: store.versions("toy") == ["v1"])
    time.sleep(0.3)  # the shutdown takes 2 s
    os.killpg(apply.pid, signal.SIGINT)
    said, _ = apply.communicate(timeout=30)
    assert apply.returncode == 0, said
    assert not list(Path(tempfile.gettempdir()).glob(f"{cluster.TEMP}{apply.pid}-*"))
    assert not alive(tmp_path.name) + in_session(apply.pid)


@pytest.mark.parametrize("words", EXECUTORS)
def test_kill_9_leaves_an_interrupted_run_that_the_next_apply_finishes(tmp_path: Path, words: list[str]) -> None:
    folder_with(tmp_path, spec())
    store = open_store(_place(tmp_path))
    apply = _start(tmp_path, "resumable", words)
    _wait(lambda: _works(store))
    apply.kill()
    apply.communicate(timeout=30)
    assert _only(store).state == "interrupted"
    plan, store = planned(tmp_path, spec())
    (result,) = applied(plan, store, toys.resumable)  # at once: the work of the killed apply is ended first
    assert (result.action, result.attempts) == ("created", 2)
    _wait(lambda: not alive(tmp_path.name) and not in_session(apply.pid), within_s=10)


def test_two_applies_at_once_make_one_artifact(tmp_path: Path) -> None:
    folder_with(tmp_path, spec())
    store = open_store(_place(tmp_path))
    first = _start(tmp_path, "write_when_told", ["--local"])
    _wait(lambda: _works(store))
    second = _start(tmp_path, "write_when_told", ["--local"])
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 5, said
    (tmp_path / "go").touch()
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert store.versions("toy") == ["v1"]
    assert len(runs.every(store)) == 1
