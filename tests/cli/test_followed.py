"""`runner logs -f` and `runner cancel` look at a run many times and read its stream once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from runner.cli import cancel, logs
from runner.cli.main import main
from runner.execution import events
from runner.execution.events import Writer
from runner.store.local import open_store

LOOKS = 10


@pytest.mark.parametrize("words", [["logs", "toy", "-f"], ["cancel", "toy"]], ids=lambda words: words[0])
def test_a_stream_is_read_from_its_beginning_only_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """To find the run, and at the first look."""
    store = open_store(str(tmp_path))
    lease = store.lease("toy")
    run = store.start_run("toy", kind="asr-transcribe", fingerprint="a" * 64, executor="inline", lease=lease)
    writer = Writer(store.run_folder(run.id) / events.FILE, run.id)
    writer.write("state", state="running", attempt=1)
    outline, offsets, looked = events.outline, [], threading.Event()

    def noted(path: Path, offset: int = 0) -> tuple[list[events.Event], int]:
        offsets.append(offset)
        if len(offsets) > LOOKS:
            looked.set()
        return outline(path, offset)

    monkeypatch.setattr(events, "outline", noted)
    for verb in (cancel, logs):
        monkeypatch.setattr(verb, "LOOK_S", 0.01)
    ended = threading.Thread(target=main, args=([*words, "--store", str(tmp_path)],))
    ended.start()
    assert looked.wait(30)
    writer.write("state", state="cancelled")
    ended.join(30)
    assert not ended.is_alive()
    assert offsets.count(0) == 2
