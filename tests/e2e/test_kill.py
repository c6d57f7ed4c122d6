"""Kills, interrupts and races: the store holds the old state or the new one, and the next apply finishes the work."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.helpers import alive, finished, manifest, quickstart, runner, start

pytestmark = pytest.mark.slow
MOMENTS = 20


def _kill(process_group: int) -> None:
    try:
        os.killpg(process_group, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_kill_at_twenty_random_moments_then_apply_again(tmp_path: Path) -> None:
    spec = quickstart(tmp_path)
    started = time.perf_counter()
    expected = finished(spec, tmp_path / "reference", "--local")
    seconds = time.perf_counter() - started
    moments = random.Random(7)
    for i in range(MOMENTS):
        store = tmp_path / f"store{i}"
        process = start("apply", str(spec), "--store", str(store), "--local", cwd=tmp_path)
        time.sleep(moments.uniform(0.05, seconds))
        _kill(process.pid)
        process.communicate()
        assert finished(spec, store, "--local") == expected, f"kill {i}"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_signal_ends_the_run_cleanly_and_the_next_apply_resumes_it(tmp_path: Path, stop: signal.Signals) -> None:
    spec, store = quickstart(tmp_path), tmp_path / "store"
    process = start("apply", str(spec), "--store", str(store), cwd=tmp_path, mark=tmp_path.name)
    events = store / ".runs"
    deadline = time.monotonic() + 120
    while not any('"progress"' in p.read_text() for p in events.glob("*/events.ndjson")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(stop)
    said, _ = process.communicate(timeout=60)
    if process.returncode == 0:  # it was quicker than the signal: nothing to resume
        pytest.fail(f"the run ended before the signal: {said}")
    assert process.returncode == 130, said
    deadline = time.monotonic() + 20
    while alive(tmp_path.name):
        assert time.monotonic() < deadline, "processes were left behind"
        time.sleep(0.2)
    runner("apply", str(spec), "--store", str(store), "--local", cwd=tmp_path)
    assert manifest(store, "quickstart-asr")["run"]["attempts"] == 2
    runner("artifacts", "verify", "--all", "--store", str(store), cwd=tmp_path)


def test_two_applies_at_once_make_one_artifact(tmp_path: Path) -> None:
    spec, store = quickstart(tmp_path), tmp_path / "store"
    pair = [start("apply", str(spec), "--store", str(store), "--local", cwd=tmp_path) for _ in range(2)]
    said = [p.communicate(timeout=180)[0] for p in pair]
    codes = sorted(p.returncode for p in pair)
    assert codes in ([0, 5], [0, 0]), said  # the second may come late enough to find the work done
    assert not any("Traceback" in text for text in said)
    assert sorted(p.name for p in (store / "quickstart-asr").iterdir()) == ["latest", "v1"]
    runner("artifacts", "verify", "--all", "--store", str(store), cwd=tmp_path)
