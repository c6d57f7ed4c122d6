"""kill -9 of the real job on ray with two workers: of the apply, of the attempt, of a worker, at random moments."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.helpers import alive, finished, in_session, manifest, quickstart, start

pytestmark = pytest.mark.slow
# who is killed, what its run has told by then, and how many seconds later at most
KILLS = [
    ("apply", '"queued"', 3.0),
    ("apply", '"running"', 2.0),
    ("apply", '"progress"', 1.0),
    ("attempt", '"progress"', 1.0),
    ("worker", '"progress"', 0.5),
]
TITLES = {"attempt": "quickstart-asr attempt", "worker": "_Seat"}


def _wait(what: Callable[[], bool], *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""  # it ended while we looked


def _kill(who: str, apply: subprocess.Popen[str]) -> None:
    if who == "apply":
        apply.kill()  # alone: ray's processes and the workers must find out by themselves
    else:
        os.kill(next(pid for pid in in_session(apply.pid) if TITLES[who] in _title(pid)), signal.SIGKILL)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart on two workers."""
    path = quickstart(tmp_path_factory.mktemp("kill"))
    path.write_text(f"{path.read_text()}\ncompute: {{cpus: 1, workers: 2, retries: 3}}\n")
    return path


@pytest.fixture(scope="module")
def expected(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of what an undisturbed apply makes."""
    return finished(spec, tmp_path_factory.mktemp("reference") / "store", "--local")


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: f"{kill[0]}-{kill[1][1:-1]}")
def test_kill_then_apply_again(kill: tuple[str, str, float], spec: Path, expected: str, tmp_path: Path) -> None:
    who, told, within_s = kill
    store = tmp_path / "store"
    apply = start("apply", str(spec), "--store", str(store), cwd=tmp_path, mark=tmp_path.name)
    streams = store / ".runs"
    _wait(lambda: any(told in p.read_text() for p in streams.glob("*/events.ndjson")), within_s=120)
    time.sleep(random.Random(f"{who} {told}").uniform(0, within_s))
    _kill(who, apply)
    said, _ = apply.communicate(timeout=180)
    assert apply.returncode == (-signal.SIGKILL if who == "apply" else 0), said
    _wait(lambda: not alive(tmp_path.name) and not in_session(apply.pid), within_s=20)
    assert finished(spec, store, "--local") == expected
    run = manifest(store, "quickstart-asr")["run"]
    attempts, executor = {"apply": (2, "inline"), "attempt": (2, "ray"), "worker": (1, "ray")}[who]
    assert (run["attempts"], run["executor"]) == (attempts, executor)
    if who == "worker":
        events = [json.loads(line) for p in streams.glob("*/events.ndjson") for line in p.read_text().splitlines()]
        assert any("another one takes over" in event.get("text", "") for event in events)
