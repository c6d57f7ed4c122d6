"""A cluster that the user started: joined, used, left as it was. And addresses that lead to none."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.execution import runs
from runner.store.local import open_store
from tests.e2e.helpers import ROOT, environment, in_session, manifest, runner
from tests.execution import toys
from tests.execution.helpers import applied, folder_with, planned
from tests.execution.helpers import spec as toy_spec

pytestmark = pytest.mark.slow
CLIPS = ("wav-22k.wav", "flac-16k.flac", "opus-16k.opus", "noise-25db.flac")
NOBODY = "127.0.0.1:1"
# Ray listens on loopback only with this (2.60), and then takes a loopback address as it is given.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
LOOK = """
import ray, time
ray.init(address={address!r}, log_to_driver=False, logging_level="ERROR")
deadline = time.monotonic() + 15
while (free := ray.available_resources().get("CPU")) != 2:
    assert time.monotonic() < deadline, f"somebody holds CPUs: {{free}} of 2 are free"
    time.sleep(0.2)
print(ray.get(ray.remote(lambda: 42).remote(), timeout=60))
"""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Somebody's ray."""

    address: str
    session: int  # of all its processes

    def ours(self) -> list[str]:
        """Its processes that carry an attempt or a worker of ours."""
        titles = [_title(pid) for pid in in_session(self.session)]
        return [title for title in titles if "_Seat" in title or "attempt" in title]

    def is_well(self) -> None:
        """Nothing of ours is left on it, all its CPUs are free, and somebody else's work is carried out."""
        _wait(lambda: not self.ours(), within_s=20)
        done = subprocess.run(
            [sys.executable, "-c", LOOK.format(address=self.address)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert (done.returncode, done.stdout.strip()) == (0, "42"), done.stderr


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head with two CPUs, started as a user does; only what belongs to its session is ended."""
    folder = tempfile.mkdtemp(prefix="join-", dir="/tmp")  # a socket's path below it may have 107 characters
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["--port", str(port), "--num-cpus", "2", "--temp-dir", folder, "--object-store-memory", "100000000"]
    more = ["--node-ip-address", "127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
    settings = environment(**LOOPBACK)
    del settings["PYTHONPATH"]  # a cluster knows nothing of the checkout of who joins it
    start = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", *words, *more],
        env=settings,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert start.wait(timeout=120) == 0
        yield Cluster(address=f"127.0.0.1:{port}", session=start.pid)
    finally:
        _wait(lambda: not _killed(start.pid), within_s=10)
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LOOPBACK.items():
        monkeypatch.setenv(name, value)


def _spec(folder: Path, **compute: object) -> Path:
    """Four recordings of the quickstart."""
    quickstart = ROOT / "specs" / "quickstart"
    for name in CLIPS:
        shutil.copy(quickstart / "clips" / name, folder)
    content = {"kind": "asr-transcribe", "name": "joined", "model": str(quickstart / "model"), "compute": compute}
    (folder / "spec.yaml").write_text(json.dumps({**content, "data": {"audio": list(CLIPS)}}))
    return folder / "spec.yaml"


def _wait(what: Callable[[], bool], *, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""  # it ended while we looked


def _killed(session: int) -> list[int]:
    """Kill what is left of ``session``; returns what there was."""
    left = in_session(session)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


def test_an_apply_joins_a_cluster_and_leaves_it_as_it_was(cluster: Cluster, tmp_path: Path) -> None:
    spec = _spec(tmp_path, cpus=1, workers=2)
    done = runner("apply", str(spec), "--address", cluster.address, cwd=tmp_path)
    assert f"joining ray at {cluster.address}" in done.stdout
    made = manifest(tmp_path / "artifacts", "joined")
    assert (made["run"]["executor"], made["metrics"]["ok"]) == ("ray", len(CLIPS))
    runner("apply", str(spec), "--local", "--store", "here", cwd=tmp_path)
    assert made["digest"] == manifest(tmp_path / "here", "joined")["digest"]
    runner("artifacts", "verify", "--all", cwd=tmp_path)
    cluster.is_well()

    again = runner("apply", str(spec), "--address", NOBODY, cwd=tmp_path)  # to connect would fail
    assert "nothing to do" in again.stdout


def test_a_cluster_that_is_too_small_says_what_it_has(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    done = runner("apply", str(_spec(tmp_path, cpus=64)), cwd=tmp_path, check=4)
    assert f"joining ray at {cluster.address}" in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith("error: joined: needs 64 CPUs, the cluster has no GPU, 2 CPUs, ")
    assert not (tmp_path / "artifacts" / "joined").exists()
    cluster.is_well()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_an_apply_that_ends_early_leaves_nothing_on_the_cluster(
    cluster: Cluster, tmp_path: Path, how: signal.Signals
) -> None:
    place = str(tmp_path / "store")
    folder_with(tmp_path, toy_spec(compute={"workers": 2}))
    store = open_store(place)
    apply = subprocess.Popen(
        [sys.executable, "-m", "tests.execution.apply_toy", "sleep_in_workers", str(tmp_path / "spec.yaml"), place],
        cwd=ROOT,
        env=environment(RAY_ADDRESS=cluster.address),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    _wait(lambda: bool(found := runs.every(store)) and found[0].progress is not None)
    assert cluster.ours()
    apply.send_signal(how)
    said, _ = apply.communicate(timeout=60)
    assert apply.returncode == (130 if how is signal.SIGINT else -signal.SIGKILL), said
    cluster.is_well()
    plan, store = planned(tmp_path, toy_spec(compute={"workers": 2}))
    (result,) = applied(plan, store, toys.write)
    assert (result.action, result.attempts) == ("created", 2)


def _refused(address: str, folder: Path) -> tuple[str, float]:
    """The error line of an apply at ``address``, and how long it took."""
    began = time.monotonic()
    done = runner("apply", str(_spec(folder)), "--address", address, cwd=folder, check=4)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert done.stderr.strip().endswith(lines[0])
    assert not (folder / "artifacts" / "joined").exists()
    return lines[0], time.monotonic() - began


def test_where_nobody_listens_is_said_at_once(tmp_path: Path) -> None:
    line, took_s = _refused(NOBODY, tmp_path)
    assert line.startswith(f"error: no ray answers at '{NOBODY}' (")
    assert line.endswith("check --address, RAY_ADDRESS; or add --local")
    assert took_s < 15


def test_where_something_listens_that_is_no_ray_is_said_within_a_minute(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        line, took_s = _refused(address, tmp_path)
    assert line.startswith(f"error: can't join ray at '{address}': ")
    assert line.endswith("check --address, RAY_ADDRESS and that it is ray's own port; or --local runs without it")
    assert took_s < 60
