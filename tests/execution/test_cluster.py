"""Ray's surroundings: its capacity read, its environment, an address where nobody is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.execution import cluster, guard
from runner.schema.errors import InfeasibleError
from tests.e2e.helpers import ROOT


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
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with pytest.raises(InfeasibleError, match="no ray answers at"):
        cluster.prepare(address)


def test_a_ray_of_our_own_gets_a_token_that_only_its_user_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PYTHONPATH": ""})
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    place = cluster.prepare(None)
    assert place.token is not None
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(place.token)
    assert (os.environ["RAY_AUTH_MODE"], os.environ["RAY_USAGE_STATS_ENABLED"]) == ("token", "0")
    assert os.environ["PYTHONPATH"] == str(ROOT)
    assert place.token.stat().st_mode & 0o777 == 0o600
    assert place.token.parent.stat().st_mode & 0o777 == 0o700
    assert len(place.token.read_text()) == 64
    assert len(str(place.token.parent)) < 40, "a socket's path below it may have 107 characters"
    guard.clean(place.token)
    assert not place.token.parent.exists()


def test_the_guard_ends_what_carries_the_token_when_its_input_closes(tmp_path: Path) -> None:
    token = tmp_path / "ray" / "token"
    token.parent.mkdir()
    token.touch()
    environment = {"RAY_AUTH_TOKEN_PATH": str(token)}
    ours = subprocess.Popen(["sleep", "1000"], env=environment, start_new_session=True)
    other = subprocess.Popen(["sleep", "1000"], env={"RAY_AUTH_TOKEN_PATH": f"{token}2"})
    guarding = guard.start(token)
    time.sleep(0.3)
    assert ours.poll() is None, "it waits for the end of its apply"
    guard.stop(guarding)
    assert ours.wait(timeout=5) == -9
    assert other.poll() is None
    assert not token.parent.exists()
    other.kill()
    other.wait()
