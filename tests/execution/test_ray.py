"""Attempts as ray tasks and pools of ray actors. One ray for the module: its start takes seven seconds of two cores."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.execution import cluster, events, process, runs
from runner.execution.alarm import CANCEL
from runner.execution.failures import Stop
from runner.execution.order import Executor, JobFunction
from runner.execution.results import StepResult
from runner.store.local import Store
from tests.execution import toys
from tests.execution.helpers import applied, planned, spec

pytestmark = [
    pytest.mark.slow,
    # ray leaves files and sockets to the garbage collector in its own code
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
Make = Callable[[Callable[[Stop], None]], Executor]
IDLE = (b"ray::IDLE", b"default_worker.py")
LOOPBACK = ("0100007F:", "00000000000000000000000001000000:", "0000000000000000FFFF00000100007F:")


class _Shared:
    """An executor that stays when an apply closes it."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    @property
    def spare(self) -> frozenset[int]:
        """Workers without work, too: ray waits a minute for one that was killed while it started."""
        idle = {pid for pid in process.descendants(os.getpid()) if any(mark in _words(pid) for mark in IDLE)}
        return self._executor.spare | idle

    def close(self) -> None:
        """It is used again."""


@pytest.fixture(scope="module")
def make() -> Iterator[Make]:
    said: list[str] = []
    place = cluster.prepare(None)
    from runner.execution.ray import Ray

    executor = Ray(place, say=said.append)
    assert said == ["starting ray (local)"]
    yield lambda _hard: _Shared(executor)
    executor.close()
    gc.collect()  # what ray leaves to it, while its warnings are passed over
    assert not process.end_descendants()
    assert place.token is not None
    assert not place.token.parent.exists()


def _one(tmp_path: Path, make: Make, job: JobFunction, **fields: Any) -> tuple[StepResult, Store]:
    plan, store = planned(tmp_path, spec(**fields))
    (result,) = applied(plan, store, job, make=make)
    return result, store


def test_nothing_listens_beyond_loopback_and_the_token_is_ours_alone(make: Make) -> None:
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.parent.stat().st_mode & 0o777 == 0o700
    mine = {str(p) for p in (os.getpid(), *process.descendants(os.getpid()))}
    targets = [str(fd.readlink()) for pid in mine for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()]
    inodes = {target[8:-1] for target in targets if target.startswith("socket:")}
    tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    listening = [line.split() for line in tables.splitlines()]
    ours = [row[1] for row in listening if row[3] == "0A" and row[9] in inodes]
    assert ours
    assert [place for place in ours if not place.startswith(LOOPBACK)] == []


def test_ray_and_inline_make_the_same_manifest(tmp_path: Path, make: Make) -> None:
    manifests = []
    for folder, maker, workers in (("inline", None, 2), ("ray", make, 2), ("one", make, 1)):
        (tmp_path / folder).mkdir()
        plan, store = planned(tmp_path / folder, spec(compute={"workers": workers}, gates={"max_wer": 0.5}))
        (result,) = applied(plan, store, toys.write, **({"make": maker} if maker else {}))
        assert result.exit_code == 0, result.message
        manifest = store.get("toy")
        assert manifest is not None
        data = manifest.to_json()
        assert data["run"].pop("executor") == ("inline" if maker is None else "ray")
        data["spec"]["compute"].pop("workers")
        for key in ("commit", "dirty"):  # the checkout may move while the test runs
            data["code"].pop(key)
        for key in ("environment", "run", "records"):  # records: timings, and a report that tells them
            data.pop(key)
        manifests.append(data)
    assert manifests[0] == manifests[1] == manifests[2]


def test_a_pool_uses_as_many_processes_as_workers(tmp_path: Path, make: Make) -> None:
    result, store = _one(tmp_path, make, toys.pids, compute={"workers": 2})
    assert result.action == "created", result.message
    assert result.metrics["processes"] == 2
    assert result.metrics["seen"] == [["1", ""], ["1", ""]]
    assert result.run
    assert (store.run_folder(result.run) / "log.txt").read_text().count("printed by a worker") == 20


def test_a_dead_worker_is_replaced_and_its_item_done_by_another(tmp_path: Path, make: Make) -> None:
    result, store = _one(tmp_path, make, toys.kills_a_worker_once, compute={"workers": 2})
    assert result.action == "created", result.message
    assert (result.metrics["deaths"], result.attempts) == (1, 1)
    manifest = store.get("toy")
    assert manifest is not None
    text = (store.folder(manifest) / "files" / "numbers.txt").read_text()
    assert text.split() == [str(2 * i) for i in range(10)]
    assert result.run
    assert "another one takes over" in (store.run_folder(result.run) / "log.txt").read_text()


def test_an_item_that_kills_three_workers_fails_the_run(tmp_path: Path, make: Make) -> None:
    result, _ = _one(tmp_path, make, toys.kills_every_worker, compute={"workers": 2})
    assert (result.action, result.failure, result.attempts) == ("failed", "UserCode", 1)
    assert "died 3 times at item 3" in result.message


def test_a_lost_attempt_is_made_again(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.execution.failures.MAX_WAIT_S", 0.01)
    result, _ = _one(tmp_path, make, toys.dies_once)
    assert (result.action, result.attempts) == ("created", 2), result.message


def test_data_errors_keep_their_class_across_processes(tmp_path: Path, make: Make) -> None:
    result, _ = _one(tmp_path, make, toys.data_invalid)
    assert (result.failure, result.message, result.attempts) == ("DataInvalid", "clip 7 holds no sound", 1)


def test_a_team_meets_on_loopback_and_only_the_first_is_heard(tmp_path: Path, make: Make) -> None:
    result, store = _one(tmp_path, make, toys.team, compute={"workers": 2})
    assert result.action == "created", result.message
    metrics = result.metrics
    assert (metrics["sum"], metrics["first"]) == (3, "from 0")
    one, two = metrics["every"]
    assert len({one["pid"], two["pid"], os.getpid()}) == 3
    assert {one["backend"], two["backend"]} == {"gloo"}
    assert [each["environment"] for each in (one, two)] == [["0", "2", "1", ""], ["1", "2", "1", ""]]
    assert one["listens"]
    assert [place for each in (one, two) for place in each["listens"] if not place.startswith(LOOPBACK)] == []
    assert result.run
    log = (store.run_folder(result.run) / "log.txt").read_text()
    assert [log.count(f"printed by process {rank}") for rank in (0, 1)] == [1, 1]
    assert [log.count(f"told by process {rank}") for rank in (0, 1)] == [1, 0]


def test_a_team_that_lost_a_process_is_made_again(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.execution.failures.MAX_WAIT_S", 0.01)
    result, store = _one(tmp_path, make, toys.team_loses_one_once, compute={"workers": 2})
    assert (result.action, result.attempts) == ("created", 2), result.message
    assert result.run
    stream, _ = events.read(store.run_folder(result.run) / events.FILE)
    (error,) = [e for e in stream if e["type"] == "error"]
    assert error["failure"] == "Preempted"
    assert error["message"].startswith("a process of the team is gone: ")


@pytest.mark.parametrize(
    "job", [toys.sleep, toys.sleep_in_workers, toys.team_sleeps, toys.team_is_deaf], ids=lambda job: job.__name__
)
def test_cancel_ends_the_attempt_and_its_workers(tmp_path: Path, make: Make, job: JobFunction) -> None:
    before = set(process.descendants(os.getpid()))
    plan, store = planned(tmp_path, spec(compute={"workers": 1 if job is toys.sleep else 2}))

    asked: list[float] = []

    def cancel() -> None:
        while not (found := runs.every(store)) or found[0].progress is None:
            time.sleep(0.05)
        asked.append(time.monotonic())
        (found[0].folder / CANCEL).touch()

    thread = threading.Thread(target=cancel)
    thread.start()
    (result,) = applied(plan, store, job, make=make)
    thread.join()
    assert (result.action, result.exit_code) == ("cancelled", 130)
    assert time.monotonic() - asked[0] < 30
    assert before
    deadline = time.monotonic() + 10
    assert result.run
    team = {int(path.name[4:]) for path in (store.run_folder(result.run) / "checkpoints").glob("pid-*")}
    assert len(team) == (2 if job in {toys.team_sleeps, toys.team_is_deaf} else 0)
    while team & {*(left := process.descendants(os.getpid()))} or any(b"_Seat" in _words(pid) for pid in left):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (tmp_path / "next").mkdir()
    after, _ = _one(tmp_path / "next", make, toys.write, compute={"timeout": "1m"})
    assert after.action == "created", after.message  # the room of a team is free again


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it ended while we looked


def test_a_timeout_is_a_timeout_here_too(tmp_path: Path, make: Make) -> None:
    result, _ = _one(tmp_path, make, toys.deaf, compute={"timeout": "1s"})
    assert (result.action, result.failure, result.attempts) == ("failed", "Timeout", 1)


def test_independent_steps_run_at_once(tmp_path: Path, make: Make) -> None:
    plan, store = planned(tmp_path, spec("one"), spec("two", precision="fp32"))
    results = applied(plan, store, toys.meets_another, make=make)
    assert [r.action for r in results] == ["created", "created"], results


def test_a_cluster_without_machines_fails_what_waits(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    answers = [ray.nodes()]  # for the capacity; later there is none left
    monkeypatch.setattr("runner.execution.ray.ray.nodes", lambda: answers.pop() if answers else [])
    monkeypatch.setattr("runner.execution.ray.LOOK_S", 0.0)
    make(lambda _: None)._executor._look_again = 0.0  # type: ignore[attr-defined]
    result, _ = _one(tmp_path, make, toys.write)
    assert (result.action, result.failure) == ("failed", "ControlPlaneLost")
