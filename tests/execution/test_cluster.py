"""Ray's surroundings: its capacity read, its environment, an address where nobody is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.execution import cluster
from runner.schema.errors import InfeasibleError
from tests.e2e.helpers import ROOT, environment


def test_capacity_is_read_from_the_nodes() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 16.0, "memory": 64e9, "GPU": 2.0, "accelerator_type:A100": 1.0}},
        {"Alive": True, "Resources": {"memory": 8e9}},  # a head without CPUs
        {"Alive": False, "Resources": {"CPU": 99.0}},
    ]
    found = cluster.capacity_of(nodes)
    assert str(found) == "the cluster has 2 x A100, 16 CPUs, 72 GB memory on 2 machines"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999", "[::1]:1"])
def test_an_address_where_nobody_is_fails_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(InfeasibleError, match="no ray answers at"):
        cluster.prepare(address)


def test_a_ray_of_our_own_gets_a_token_that_only_its_user_reads() -> None:
    code = (
        "import os; from runner.execution import cluster; p = cluster.prepare(None);"
        "t = os.environ['RAY_AUTH_TOKEN_PATH'];"
        "print(p.folder, oct(os.stat(t).st_mode & 0o777), oct(p.folder.stat().st_mode & 0o777), open(t).read());"
        "print(os.environ['RAY_USAGE_STATS_ENABLED'], os.environ['RAY_AUTH_MODE'], os.environ['PYTHONPATH']);"
        "cluster.remove(p); print(p.folder.exists())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(PYTHONPATH=""),
        capture_output=True,
        text=True,
        check=True,
    )
    first, second, third = done.stdout.splitlines()
    folder, token_mode, folder_mode, token = first.split()
    assert (token_mode, folder_mode, len(token)) == ("0o600", "0o700", 64)
    assert len(folder) < 40, "a socket's path below it may have 107 characters"
    assert second.split() == ["0", "token", str(ROOT)]
    assert third == "False"


def test_a_folder_of_a_killed_apply_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_short_temp", lambda: str(tmp_path))
    dead = tmp_path / f"{cluster.TEMP}999999999-x"
    alive = tmp_path / f"{cluster.TEMP}{os.getpid()}-x"
    fresh = tmp_path / f"{cluster.TEMP}999999998-x"
    for folder in (dead, alive, fresh):
        folder.mkdir()
        (folder / "log").touch()
    for folder in (dead, alive):
        os.utime(folder, (1, 1))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    place = cluster.prepare(None)
    assert not dead.exists()
    assert alive.exists()
    assert fresh.exists()
    cluster.remove(place)
