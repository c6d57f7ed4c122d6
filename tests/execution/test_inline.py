"""Attempts in this process: what is published, what is tried again, what is refused."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path

import pytest

from runner.execution import events, runs
from runner.execution.alarm import CANCEL
from runner.schema.errors import InfeasibleError, StoreError
from runner.schema.jobs.asr_transcribe import AsrTranscribe
from runner.store.local import Store, open_store
from runner.ui.progress import Lines
from tests.execution import toys
from tests.execution.helpers import applied, apply_one, planned, spec


def _states(store: Store, run: str) -> list[str]:
    stream, _ = events.read(store.run_folder(run) / events.FILE)
    return [e["state"] for e in stream if e["type"] == "state"]


def test_a_job_becomes_an_artifact_with_all_that_the_manifest_promises(tmp_path: Path) -> None:
    result, store = apply_one(tmp_path, toys.write, gates={"max_wer": 0.5})
    assert (result.action, result.artifact, result.exit_code) == ("created", "toy@v1", 0)
    manifest = store.get("toy", "v1")
    assert manifest is not None
    folder = store.folder(manifest)
    assert (folder / "files" / "numbers.txt").read_text().split() == [str(2 * i) for i in range(10)]
    assert {f.path for f in manifest.records} == {
        "records/timing.txt",
        "records/inputs.json",
        "report.html",
        "report.json",
    }
    assert manifest.metrics == {"sum": 90, "wer": 0.25}
    assert manifest.gates == ({"name": "max_wer", "limit": 0.5, "value": 0.25, "passed": True},)
    assert manifest.ledger[0]["what"] == "doubling"
    assert [i["field"] for i in manifest.inputs] == ["model", "data.audio"]
    assert manifest.run["id"] == result.run
    assert manifest.run["attempts"] == 1
    assert manifest.run["executor"] == "inline"
    assert manifest.environment["packages"]["torch"]
    assert manifest.code["code_version"] == AsrTranscribe.code_version
    assert json.loads((folder / "report.json").read_text())["name"] == "toy@v1"
    assert store.holder("toy") is None


def test_events_and_log_tell_what_happened(tmp_path: Path) -> None:
    result, store = apply_one(tmp_path, toys.write)
    assert result.run
    folder = store.run_folder(result.run)
    stream, _ = events.read(folder / events.FILE)
    assert _states(store, result.run) == ["queued", "running", "succeeded"]
    assert [e for e in stream if e["type"] == "progress"][-1]["done"] == 10
    assert {"metric", "log", "ledger"} <= {e["type"] for e in stream}
    log = (folder / "log.txt").read_text()
    assert "printed by the job" in log
    assert "told by the job" in log


def test_a_second_apply_finds_it_there(tmp_path: Path) -> None:
    apply_one(tmp_path, toys.write)
    result, store = apply_one(tmp_path, toys.data_invalid)
    assert (result.action, result.artifact) == ("reused", "toy@v1")
    assert len(store.runs()) == 1


def test_the_same_work_under_another_name_is_linked(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, spec("one"), spec("two"))
    results = applied(plan, store, toys.write)
    assert [(r.action, r.artifact) for r in results] == [("created", "one@v1"), ("linked", "two@v1")]
    assert len(store.runs()) == 1


def test_invalid_data_is_not_tried_again_and_its_checkpoints_are_dropped(tmp_path: Path) -> None:
    result, store = apply_one(tmp_path, toys.data_invalid)
    assert (result.action, result.failure, result.exit_code, result.attempts) == ("failed", "DataInvalid", 1, 1)
    assert result.message == "clip 7 holds no sound"
    assert result.run
    (store.run_folder(result.run) / "checkpoints" / "poison").touch()
    again, _ = apply_one(tmp_path, toys.write)
    assert (again.action, again.attempts, again.run) == ("created", 2, result.run)
    assert not (store.run_folder(result.run) / "checkpoints" / "poison").exists()


def test_out_of_memory_is_tried_again_from_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.execution.failures.MAX_WAIT_S", 0.01)
    result, store = apply_one(tmp_path, toys.memory_once)
    assert (result.action, result.attempts) == ("created", 2)
    assert result.run
    assert _states(store, result.run) == ["queued", "running", "queued", "queued", "running", "succeeded"]
    stream, _ = events.read(store.run_folder(result.run) / events.FILE)
    (error,) = [e for e in stream if e["type"] == "error"]
    assert (error["failure"], error["attempt"], error["again"]) == ("OutOfMemoryHost", 1, True)


def test_no_retries_when_the_spec_says_so(tmp_path: Path) -> None:
    result, _ = apply_one(tmp_path, toys.memory_once, compute={"retries": 0})
    assert (result.action, result.failure, result.attempts) == ("failed", "OutOfMemoryHost", 1)


@pytest.mark.parametrize("job", [toys.sleep, toys.deaf], ids=["asks", "deaf"])
def test_a_timeout_ends_the_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: toys.Job) -> None:
    monkeypatch.setattr("runner.execution.alarm.GRACE_S", 0.5)
    result, _ = apply_one(tmp_path, job, compute={"timeout": "1s"})
    assert (result.action, result.failure, result.exit_code, result.attempts) == ("failed", "Timeout", 1, 1)
    assert result.seconds
    assert result.seconds < 5


def test_a_cancelled_run_goes_on_with_the_next_apply(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, spec())

    def cancel() -> None:
        while not (found := runs.every(store)) or found[0].progress is None:
            pass
        (found[0].folder / CANCEL).touch()

    thread = threading.Thread(target=cancel)
    thread.start()
    (result,) = applied(plan, store, toys.resumable)
    thread.join()
    assert (result.action, result.exit_code) == ("cancelled", 130)
    (run,) = runs.every(store)
    assert (run.state, run.can_resume) == ("cancelled", True)
    (result,) = applied(plan, store, toys.resumable)
    assert (result.action, result.run, result.attempts) == ("created", run.id, 2)
    manifest = store.get("toy")
    assert manifest is not None
    assert manifest.run["attempts"] == 2


def test_an_input_that_changes_meanwhile_is_not_published(tmp_path: Path) -> None:
    result, store = apply_one(tmp_path, toys.touches_its_input)
    assert (result.action, result.exit_code) == ("failed", 5)
    assert "data.audio" in result.message
    assert store.names() == []


def test_an_input_that_changed_since_the_plan_runs_nothing(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, spec())
    (tmp_path / "clip.wav").write_bytes(b"other")
    (result,) = applied(plan, store, toys.write)
    assert (result.action, result.exit_code, store.runs()) == ("failed", 5, [])


def test_a_missed_gate_quarantines_and_a_wider_one_releases(tmp_path: Path) -> None:
    result, store = apply_one(tmp_path, toys.write, gates={"max_wer": 0.1})
    assert (result.action, result.failure, result.exit_code) == ("quarantined", "GateFailed", 3)
    assert "max_wer" in result.message
    assert store.names() == []
    assert result.folder
    assert (Path(result.folder) / "files" / "numbers.txt").exists()
    blocked, _ = apply_one(tmp_path, toys.write, gates={"max_wer": 0.1})
    assert (blocked.action, blocked.exit_code) == ("blocked", 3)
    released, _ = apply_one(tmp_path, toys.data_invalid, gates={"max_wer": 0.3})
    assert (released.action, released.artifact, released.exit_code) == ("released", "toy@v1", 0)
    manifest = store.get("toy")
    assert manifest is not None
    report = json.loads((store.folder(manifest) / "report.json").read_text())
    assert (report["name"], report["outcome"], report["gates"][0]["passed"]) == ("toy@v1", "published", True)


def test_a_job_that_says_it_failed_keeps_its_results_and_publishes_nothing(tmp_path: Path) -> None:
    result, store = apply_one(tmp_path, toys.says_it_failed)
    assert (result.action, result.failure, result.exit_code) == ("failed", "DataInvalid", 1)
    assert "3 of 10 recordings failed" in result.message
    assert result.run
    assert (store.run_folder(result.run) / "out" / "numbers.txt").exists()
    assert store.names() == []
    again, _ = apply_one(tmp_path, toys.write)
    assert again.action == "created"


def test_reports_name_the_version_even_after_a_damaged_one(tmp_path: Path) -> None:
    apply_one(tmp_path, toys.write)
    store = open_store(str(tmp_path / "store"))
    (store.root / "toy" / "v1" / "manifest.json").unlink()
    again, _ = apply_one(tmp_path, toys.write, precision="fp32")
    apply_one(tmp_path, toys.write, precision="bf16", gates={"max_wer": 0.1})
    released, _ = apply_one(tmp_path, toys.write, precision="bf16", gates={"max_wer": 0.3})
    assert (again.artifact, released.artifact) == ("toy@v2", "toy@v3")
    (store.root / "toy" / "v3" / "manifest.json").unlink()
    apply_one(tmp_path, toys.write, precision="fp16", gates={"max_wer": 0.1})
    last, _ = apply_one(tmp_path, toys.write, precision="fp16", gates={"max_wer": 0.3})
    assert last.artifact == "toy@v4"
    for version in ("v2", "v4"):
        report = json.loads((store.root / "toy" / version / "report.json").read_text())
        assert report["name"] == f"toy@{version}"


def test_what_a_job_kept_when_it_said_that_it_failed_is_gone_on_from(tmp_path: Path) -> None:
    result, store = apply_one(tmp_path, toys.says_it_failed, on_error="fail")
    assert result.run
    (store.run_folder(result.run) / "checkpoints" / "done").touch()
    (run,) = runs.every(store)
    assert (run.state, run.failure, run.can_resume) == ("failed", "DataInvalid", True)
    again, _ = apply_one(tmp_path, toys.goes_on_from_done)
    assert (again.action, again.run, again.attempts) == ("created", result.run, 2)
    assert '"resumes": true' in (store.run_folder(result.run) / events.FILE).read_text()


def test_a_later_failure_drops_what_was_kept(tmp_path: Path) -> None:
    apply_one(tmp_path, toys.says_it_failed)
    apply_one(tmp_path, toys.data_invalid)
    result, store = apply_one(tmp_path, toys.data_invalid)
    (run,) = runs.every(store)
    assert (result.attempts, run.can_resume) == (3, False)


def test_a_failed_step_blocks_only_what_needs_it(tmp_path: Path) -> None:
    needs = spec("needs", data={"manifest": "artifact:bad#numbers.txt"})
    plan, store = planned(tmp_path, spec("bad"), needs, spec("good", precision="fp32"))

    def job(given: object, ctx: toys.Context) -> toys.Result:
        return toys.data_invalid(given, ctx) if ctx.run.startswith("bad.") else toys.write(given, ctx)

    results = {r.name: r for r in applied(plan, store, job)}
    assert {n: r.action for n, r in results.items()} == {"bad": "failed", "needs": "skipped", "good": "created"}
    assert "'bad'" in results["needs"].message


def test_infeasible_resources_are_said_before_anything_starts(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, spec("small"), spec("large", precision="fp32", compute={"cpus": 4000}))
    with pytest.raises(InfeasibleError, match="large: needs 4000 CPUs"):
        applied(plan, store, toys.write)
    assert not store.root.exists() or store.runs() == []


def test_a_name_that_somebody_holds_is_a_conflict(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, spec("held"), spec("free", precision="fp32"))
    with store.lease("held"):
        held, free = applied(plan, store, toys.write)
    assert (held.action, held.exit_code, free.action) == ("failed", 5, "created")
    assert "is being written by" in held.message


def test_lines_of_progress_come_from_the_events(tmp_path: Path) -> None:
    with (tmp_path / "shown").open("w") as out:
        plan, store = planned(tmp_path, spec())
        applied(plan, store, toys.write, progress=Lines(out))
    lines = (tmp_path / "shown").read_text().splitlines()
    assert lines[0] == "toy: running"
    assert "toy: 10/10 numbers (100%)" in lines
    assert "toy: told by the job" in lines
    assert lines[-1] == "toy: done, toy@v1"


def test_the_pool_of_one_process_gives_every_position(tmp_path: Path) -> None:
    result, _ = apply_one(tmp_path, toys.pids, compute={"workers": 2})
    assert result.metrics["processes"] == 1
    assert result.metrics["seen"] == [["1", ""]]


def test_a_full_disk_fails_the_step_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("runner.execution.task.Writer.write", full)
    plan, store = planned(tmp_path, spec("one"), spec("two", precision="fp32"))
    results = applied(plan, store, toys.write)
    assert [(r.action, r.failure, r.exit_code) for r in results] == [("failed", "DiskFull", 1)] * 2
    assert store.holder("one") is None


def test_a_step_that_cannot_begin_has_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise StoreError("the store is read-only")

    monkeypatch.setattr("runner.store.local.Store.start_run", refused)
    result, store = apply_one(tmp_path, toys.write)
    assert (result.action, result.message, result.run) == ("failed", "the store is read-only", None)
    assert store.holder("toy") is None
