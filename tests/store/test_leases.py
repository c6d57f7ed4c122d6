"""One holder at a time: among processes, after deaths, through jumps of the clock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.schema.errors import ConflictError
from runner.store import leases, owner
from runner.store.leases import Lease, acquire, holders
from runner.store.local import Store

HOLD = """
import sys, time
from runner.store.local import open_store
with open_store(sys.argv[1]).lease(sys.argv[2]) as lease:
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""

# each holder writes to a file alone; whoever meets another one inside says so
RACE = """
import os, sys
from runner.schema.errors import ConflictError
from runner.store.local import open_store
store, flag, held = open_store(sys.argv[1]), sys.argv[2], 0
while True:
    try:
        with store.lease("a") as lease:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
            lease.check()
            held += 1
            if held == 12:
                os.unlink(flag)
                os._exit(7)  # dies with the lease in hand
            os.unlink(flag)
    except ConflictError:
        pass
"""


def _start(code: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, text=True)


def _hold(store: Store, name: str, seconds: float) -> subprocess.Popen[str]:
    process = _start(HOLD, store.root, name, seconds)
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def _change(store: Store, name: str, **changes: Any) -> None:
    """Let the lease look as if it came from elsewhere."""
    path = next(store.layout.leases.glob(f"{name}.*.json"))
    data = json.loads(path.read_text())
    data["owner"] |= changes
    path.write_text(json.dumps(data))


def _age(store: Store, name: str, seconds: float) -> None:
    path = next(store.layout.leases.glob(f"{name}.*.json"))
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_second_holder_is_refused_and_told_by_whom(store: Store) -> None:
    with store.lease("a", run="a.12345678.1"):
        with pytest.raises(ConflictError) as caught:
            store.lease("a")
        holder = store.holder("a")
        assert holder and holder.owner == owner.me() and holder.run == "a.12345678.1"
        with store.lease("b"):
            pass
    told = str(caught.value)
    assert f"'a' is being written by process {os.getpid()} of" in told and "for run 'a.12345678.1' since 20" in told
    assert "wait until it is done or stop it with `runner cancel a.12345678.1`" in told
    assert store.holder("a") is None
    with store.lease("a") as lease:
        assert lease.number == 2


def test_a_lease_is_given_back_on_an_error(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.lease("a"):
        _ = 1 / 0
    assert store.holder("a") is None


def test_a_killed_holder_is_replaced_at_once(store: Store) -> None:
    process = _hold(store, "a", 60)
    with pytest.raises(ConflictError, match=f"process {process.pid} of"):
        store.lease("a")
    process.send_signal(signal.SIGKILL)
    time.sleep(0.1)  # a zombie until it is waited for: dead all the same
    with store.lease("a"):
        pass
    process.communicate()


def test_a_number_given_to_another_process_is_no_sign_of_life(store: Store) -> None:
    store.lease("a")
    _change(store, "a", start="1")
    with store.lease("a"):
        pass


@pytest.mark.parametrize("jump_s", [-86400, 86400])
def test_a_jump_of_the_clock_gives_no_second_holder(store: Store, monkeypatch: pytest.MonkeyPatch, jump_s: int) -> None:
    now = time.time()
    with store.lease("a") as lease:
        _age(store, "a", 86400)
        monkeypatch.setattr(time, "time", lambda: now + jump_s)
        with pytest.raises(ConflictError):
            store.lease("a")
        lease.check()


def test_a_holder_elsewhere_counts_until_it_falls_silent(store: Store) -> None:
    lost = store.lease("a")
    _change(store, "a", host="another")
    _age(store, "a", leases.TTL_S - 30)
    with pytest.raises(ConflictError, match="on 'another'"):
        store.lease("a")
    _age(store, "a", leases.TTL_S + 1)
    with store.lease("a") as lease:
        assert lease.number == 2
        with pytest.raises(
            ConflictError, match=r"the lease on 'a' was lost: taken over by process .* nothing was published"
        ):
            lost.check()
        lost.release()
        lease.check()


def test_a_lost_lease_publishes_nothing(store: Store, make_draft: Any) -> None:
    lost = store.lease("a")
    draft = make_draft(lost)
    _change(store, "a", pid=2**22 + 1)
    with store.lease("a"), pytest.raises(ConflictError, match="was lost"):
        store.publish(draft, lease=lost)
    assert store.names() == [] and not (store.root / "a").exists()


def test_the_heartbeat_keeps_it_and_stops_when_it_is_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "TTL_S", 0.4)
    with store.lease("a") as lease:
        _change(store, "a", host="another")
        time.sleep(1)
        with pytest.raises(ConflictError):
            store.lease("a")
        lease.check()
        next(store.layout.leases.glob("a.*")).unlink()
        time.sleep(0.3)
        with pytest.raises(ConflictError, match="its file was removed"):
            lease.check()
    assert list(store.layout.leases.iterdir()) == []


@pytest.mark.parametrize("text", ["\n", "{", "[]", '{"token": "x"}', '{"owner": 3}'])
def test_a_damaged_lease_counts_until_it_is_old(store: Store, text: str) -> None:
    store.layout.leases.mkdir(parents=True)
    (store.layout.leases / "a.4.json").write_text(text)
    with pytest.raises(ConflictError, match="an unknown user"):
        store.lease("a")
    _age(store, "a", leases.TTL_S + 1)
    with store.lease("a") as lease:
        assert lease.number == 5


def test_numbers_that_begin_anew_give_no_second_holder(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A taker saw number 7 and stalled; gc removed it; somebody else began at 1. The taker must see that one."""
    folder = store.layout.leases
    with store.lease("a") as other:
        real, seen = leases.holders, [[replace(leases._new("a", 7, ""), released=True)]]
        monkeypatch.setattr(leases, "holders", lambda *args: seen.pop() if seen else real(*args))
        with pytest.raises(ConflictError):
            acquire(folder, "a")
        monkeypatch.undo()
        assert [h.number for h in holders(folder, "a")] == [1]
        other.check()


def test_processes_that_race_and_die_never_hold_it_together(store: Store, tmp_path: Path) -> None:
    racers = [_start(RACE, store.root, tmp_path / "flag") for _ in range(4)]
    try:
        codes = [racer.communicate(timeout=60) and racer.returncode for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
    assert codes == [7] * 4, codes  # 1: two held it, the flag was there
    with store.lease("a") as lease:
        assert isinstance(lease, Lease) and lease.number == 4 * 12 + 1
    assert sorted(p.name for p in store.layout.leases.iterdir()) == [
        f"a.{lease.number - 1}.json",
        f"a.{lease.number}.json",
    ]
