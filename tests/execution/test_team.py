"""Teams of processes on this machine, without ray."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from runner.context import Context
from runner.execution import events, process, runs, team
from runner.execution.alarm import CANCEL
from runner.execution.order import JobFunction
from runner.execution.share import Share
from runner.execution.team import Seat
from tests.execution import toys
from tests.execution.helpers import applied, apply_one, planned, spec

TWO = {"workers": 2}
SHARE = Share(workers=1, cpus=1, threads=1, gpus=0, memory_gb=0, accelerator=None)
LOOPBACK = ("0100007F:", "00000000000000000000000001000000:", "0000000000000000FFFF00000100007F:")


def test_the_team_of_one_is_this_process(tmp_path: Path) -> None:
    result, _ = apply_one(tmp_path, toys.team)
    assert result.metrics["here"] == os.getpid()
    assert (result.metrics["sum"], result.metrics["first"]) == (1, "from 0")


def test_a_team_meets_and_only_the_first_is_heard(tmp_path: Path) -> None:
    result, store = apply_one(tmp_path, toys.team, compute=TWO)
    assert result.action == "created", result.message
    metrics = result.metrics
    assert (metrics["sum"], metrics["first"]) == (3, "from 0")
    one, two = metrics["every"]
    assert len({one["pid"], two["pid"], os.getpid()}) == 3
    assert metrics["here"] == one["pid"]
    assert {one["backend"], two["backend"]} == {"gloo"}
    assert [each["environment"] for each in (one, two)] == [["0", "2", "1", ""], ["1", "2", "1", ""]]
    assert [each["ctx"] for each in (one, two)] == [[1, 1], [1, 1]]
    assert one["listens"]
    assert [place for each in (one, two) for place in each["listens"] if not place.startswith(LOOPBACK)] == []
    assert result.run
    folder = store.run_folder(result.run)
    log = (folder / "log.txt").read_text()
    assert [log.count(f"printed by process {rank}") for rank in (0, 1)] == [1, 1]
    assert [log.count(f"told by process {rank}") for rank in (0, 1)] == [1, 0]
    stream, _ = events.read(folder / events.FILE)
    assert [e["value"] for e in stream if e["type"] == "metric"] == [0]
    assert [e["done"] for e in stream if e["type"] == "progress"] == [1]
    assert not list(folder.glob("team-*"))


def test_an_answer_goes_where_its_space_was_taken_before(tmp_path: Path) -> None:
    """So that a process which finds the disk full can say so."""
    seat = Seat(work=len, given={}, folder=tmp_path, room=tmp_path, share=SHARE, timeout_s=1)
    seat.reserve(0)
    taken = (tmp_path / "0.new").stat()
    assert taken.st_blocks * 512 >= taken.st_size == 1 << 14
    seat.leave(0, "done")
    assert (tmp_path / "0").stat().st_ino == taken.st_ino
    assert team.answer(seat, died="") == "done"


def test_the_room_of_an_attempt_that_was_killed_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "team-killed").mkdir()
    context = cast(Context, SimpleNamespace(checkpoints=tmp_path / "checkpoints"))
    with team.seats(len, context, share=SHARE, timeout_s=1) as seat:
        assert list(tmp_path.glob("team-*")) == [seat.room]
        assert [(one.name, one.stat().st_size) for one in seat.room.iterdir()] == [("0.new", team.RESERVED)]
    assert not list(tmp_path.glob("team-*"))


def test_a_disk_without_room_for_the_answers_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a process that went without a word, which would be tried again."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Seat, "reserve", full)
    result, store = apply_one(tmp_path, toys.team, compute=TWO)
    assert (result.action, result.failure) == ("failed", "DiskFull")
    assert result.run
    assert not list(store.run_folder(result.run).glob("team-*"))


@pytest.mark.slow
def test_the_first_failure_ends_all_and_keeps_its_class(tmp_path: Path) -> None:
    result, _ = apply_one(tmp_path, toys.team_fails, compute=TWO)
    assert (result.failure, result.message, result.attempts) == ("NaN", "the loss became nan", 1)
    assert _children() == []


@pytest.mark.slow
def test_a_team_that_lost_a_process_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.execution.failures.MAX_WAIT_S", 0.01)
    result, store = apply_one(tmp_path, toys.team_loses_one_once, compute=TWO)
    assert (result.action, result.attempts) == ("created", 2), result.message
    assert result.run
    stream, _ = events.read(store.run_folder(result.run) / events.FILE)
    (error,) = [e for e in stream if e["type"] == "error"]
    assert error["failure"] == "Preempted"
    assert error["message"] == "a process of the team is gone: process 1 was ended by SIGKILL"


@pytest.mark.slow
@pytest.mark.parametrize("job", [toys.team_sleeps, toys.team_is_deaf], ids=["asks", "deaf"])
def test_cancel_ends_every_process(tmp_path: Path, job: JobFunction) -> None:
    plan, store = planned(tmp_path, spec(compute=TWO))

    def cancel() -> None:
        while not (found := runs.every(store)) or found[0].progress is None:
            time.sleep(0.05)
        (found[0].folder / CANCEL).touch()

    thread = threading.Thread(target=cancel)
    thread.start()
    (result,) = applied(plan, store, job)
    thread.join()
    assert (result.action, result.exit_code) == ("cancelled", 130)
    assert _children() == []


def _children() -> list[int]:
    """Processes of teams that are left."""
    found = process.descendants(os.getpid())
    return [pid for pid in found if b"local_team" in Path(f"/proc/{pid}/cmdline").read_bytes()]
