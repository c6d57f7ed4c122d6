"""Runs as their streams tell them, without parsing these streams again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.execution import events, runs
from runner.execution.events import Writer
from runner.store.local import Store, open_store


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Lines that were parsed."""
    lines: list[bytes] = []
    parse = events._parse

    def noted(line: bytes) -> events.Event | None:
        lines.append(line)
        return parse(line)

    monkeypatch.setattr(events, "_parse", noted)
    return lines


def _begin(store: Store) -> tuple[Writer, str]:
    lease = store.lease("toy")
    run = store.start_run("toy", kind="asr-transcribe", fingerprint="a" * 64, executor="inline", lease=lease)
    writer = Writer(store.run_folder(run.id) / events.FILE, run.id)
    writer.write("state", state="running", attempt=1)
    for i in range(2000):
        writer.write("log", text=f"line {i}")
        writer.write("progress", done=i, total=2000, unit="files")
    return writer, run.id


def test_a_long_stream_is_not_parsed_to_list_its_run(tmp_path: Path, parsed: list[bytes]) -> None:
    store = open_store(str(tmp_path))
    writer, _ = _begin(store)
    (run,) = runs.every(store)
    assert (run.state, run.progress, len(parsed)) == ("running", (1999, 2000, "files"), 2)
    writer.write("state", state="failed", failure="Timeout", message="too long")
    (run,) = runs.every(store)
    assert (run.state, run.failure, run.message, len(parsed)) == ("failed", "Timeout", "too long", 5)


def test_a_run_that_is_followed_is_read_once(tmp_path: Path, parsed: list[bytes]) -> None:
    store = open_store(str(tmp_path))
    writer, name = _begin(store)
    followed = runs.Followed(store, name)
    first = followed.look()
    assert first == runs.of_id(store, name)
    parsed.clear()
    assert followed.look() == first
    assert parsed == []
    writer.write("progress", done=2000, total=2000, unit="files")
    writer.write("state", state="succeeded", artifact="toy@v1")
    last = followed.look()
    assert len(parsed) == 2
    assert last == runs.of_id(store, name)
    assert last is not None
    assert first is not None
    assert (last.artifact, last.is_over, last.started) == ("toy@v1", True, first.started)


def test_there_is_no_such_run(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert runs.Followed(store, "toy.aaaaaaaa.1").look() is None
