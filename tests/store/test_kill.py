"""A kill at any step, and at any moment, leaves the old state or the new one, and nothing that gc does not remove."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runner.store import lookup
from runner.store.gc import collect
from runner.store.local import Store, open_store
from runner.store.verify import verify
from tests.store import killed

DRIVER = [sys.executable, "-m", "tests.store.killed"]
ROOT = Path(__file__).parents[2]


def _state(store: Store) -> tuple[int, str]:
    """(number of the latest version of ``a``, which fingerprint it has) after checks that hold at all times."""
    fresh = open_store(str(store.root))
    found = verify(fresh)
    assert not found.damage, found.damage
    folder = store.root / "a"
    assert lookup.version_folders(folder) == fresh.versions("a")
    for version in fresh.versions("a"):
        manifest = fresh.get("a", version)
        assert manifest and (fresh.by_fingerprint(manifest.fingerprint, "b") or "").startswith(("a@", "other@"))
    latest = fresh.latest("a")
    return (int(latest.version[1:]), latest.fingerprint) if latest else (0, "")


def _nothing_is_left(store: Store) -> None:
    collect(store, delete=True, grace_s=0)
    left = [p for p in store.root.rglob("*") if ".tmp-" in p.name or ".staging-" in p.name]
    assert not left and not list(store.layout.trash.iterdir())
    assert not collect(store).garbage
    assert not verify(store).damage


def _die(store: Store, change: str, n: int, step: int) -> int:
    """Fork, so that the start of Python is paid once; the exit code."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            killed.die_at(store.root, step)
            killed.CHANGES[change](open_store(str(store.root)), n)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("change", ["publish", "link", pytest.param("release", marks=pytest.mark.slow)])
def test_death_at_every_step(store: Store, publish: Any, change: str) -> None:
    publish("other")
    before, step, code = _state(store), 0, 9
    while code == 9:
        step += 1
        code = _die(store, change, step, step)
        after = _state(store)
        fingerprint = "ab" * 32 if change == "link" else killed.fingerprint_of(step)
        assert after in (before, (before[0] + 1, fingerprint), (before[0] + 2, fingerprint)), f"step {step}"
        before = after
    assert code == 0 and step > 30, f"ended with {code} at step {step}"
    assert after[1] == fingerprint
    _nothing_is_left(store)


@pytest.mark.parametrize("change", ["publish", "release"])
def test_death_at_random_moments(store: Store, publish: Any, change: str) -> None:
    publish("other")
    chance = random.Random(change)
    before = _state(store)
    for n in range(10):
        words = [*DRIVER, str(store.root), change, str(1000 * n), "0"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout and process.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
        after = _state(store)
        assert after[0] >= before[0]
        before = after
    _nothing_is_left(store)
