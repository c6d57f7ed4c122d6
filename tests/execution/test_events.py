"""The event stream: whole lines from many writers, torn ones passed over, reading on from an offset."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from runner.execution import events
from runner.execution.events import Writer


def test_events_are_read_back_and_on_from_an_offset(tmp_path: Path) -> None:
    path = tmp_path / events.FILE
    assert events.read(path) == ([], 0)
    writer = Writer(path, "toy.1")
    writer.write("state", state="queued")
    first, offset = events.read(path)
    assert [(e["v"], e["run"], e["type"], e["state"]) for e in first] == [(1, "toy.1", "state", "queued")]
    writer.write("log", text="não\nquebra")
    second, end = events.read(path, offset)
    assert [e["text"] for e in second] == ["não\nquebra"]
    assert events.read(path, end) == ([], end)
    writer.close()


def test_a_line_that_is_still_being_written_waits(tmp_path: Path) -> None:
    path = tmp_path / events.FILE
    path.write_bytes(b'{"v":1,"type":"log","text":"whole"}\n{"v":1,"type":"lo')
    found, offset = events.read(path)
    assert [e["text"] for e in found] == ["whole"]
    with path.open("ab") as file:
        file.write(b'g","text":"late"}\n')
    assert [e["text"] for e in events.read(path, offset)[0]] == ["late"]


def test_a_line_torn_by_a_kill_is_ended_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / events.FILE
    path.write_bytes(b'{"v":1,"type":"log","te')
    writer = Writer(path, "toy.1")
    writer.write("log", text="after")
    writer.close()
    found, _ = events.read(path)
    assert [e["text"] for e in found] == ["after"]


@pytest.mark.parametrize("line", ["", "null", "[]", "{}", '{"v":0,"type":"log"}', '{"v":1}', "\x00\x00", "{" * 5000])
def test_lines_that_are_no_events_are_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / events.FILE
    path.write_text(line + '\n{"v":1,"type":"log","text":"x"}\n')
    assert [e["text"] for e in events.read(path)[0]] == ["x"]


def test_many_writers_never_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / events.FILE

    def work(number: int) -> None:
        writer = Writer(path, f"run-{number}")
        for i in range(200):
            writer.write("log", text=f"{number} {i} " + "x" * 3000)
        writer.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(events.read(path)[0]) == 800
    # a writer that opens the file in the middle of another's write may add an empty line, never break one
    assert all(json.loads(line) for line in path.read_text().splitlines() if line)


def test_a_text_is_cut_to_what_one_write_takes(tmp_path: Path) -> None:
    writer = Writer(tmp_path / events.FILE, "toy.1")
    writer.write("log", text="x" * 1_000_000)
    writer.close()
    ((event), _) = events.read(tmp_path / events.FILE)
    assert len(event[0]["text"]) == events.MAX_TEXT


def _stream(path: Path) -> list[events.Event]:
    writer = Writer(path, "toy.1")
    writer.write("state", state="queued")
    writer.write("state", state="running", attempt=1)
    for i in range(100):
        writer.write("log", text=f'{i} {{"type": "state", "state": "failed"}}')
        writer.write("progress", done=i, total=100, unit="files")
    writer.write("error", failure="Preempted", message="gone")
    writer.write("metric", name="wer", value=0.5)
    writer.close()
    return events.read(path)[0]


def test_an_outline_has_what_tells_the_state(tmp_path: Path) -> None:
    every = _stream(tmp_path / events.FILE)
    assert len(every) == 204
    found, offset = events.outline(tmp_path / events.FILE)
    assert found == [*every[:2], *every[-3:]]
    assert offset == (tmp_path / events.FILE).stat().st_size
    assert events.outline(tmp_path / events.FILE, offset) == ([], offset)
    assert events.outline(tmp_path / "none") == ([], 0)


@pytest.mark.parametrize("size", [400, 1000, 4096])
def test_an_outline_is_put_together_from_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    every = _stream(tmp_path / events.FILE)
    monkeypatch.setattr(events, "BLOCK", size)
    found, _ = events.outline(tmp_path / events.FILE)
    told = [e for e in found if e["type"] in {"state", "error"}]
    assert told == [e for e in every if e["type"] in {"state", "error"}]
    assert [e for e in found if e["type"] == "progress"][-1]["done"] == 99
    assert found[-1] == every[-1]
    assert [every.index(e) for e in found] == sorted(every.index(e) for e in found)


def test_an_outline_waits_for_a_line_that_is_still_being_written(tmp_path: Path) -> None:
    path = tmp_path / events.FILE
    path.write_bytes(b'{"v": 1, "type": "state", "state": "queued"}\n{"v": 1, "type": "sta')
    found, offset = events.outline(path)
    assert [e["state"] for e in found] == ["queued"]
    with path.open("ab") as file:
        file.write(b'te", "state": "running"}\n')
    assert [e["state"] for e in events.outline(path, offset)[0]] == ["running"]
