"""Results on disk: whole lines survive, torn ones do not, and another plan's are not taken over."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runner.asr.silence import NEVER
from runner.asr.spool import Spool

OK: dict[str, Any] = {"status": "ok", "text": "olá"}


Open = Callable[[], Spool]


@pytest.fixture
def open_(tmp_path: Path) -> Iterator[Open]:
    """Opens the same spool again and again."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(Spool(tmp_path, items=5, plan="a")))


def filled(open_: Open) -> None:
    spool = open_()
    spool.finish(3, OK | {"path": "três"}, {"attempts": 1})
    spool.finish(0, OK | {"path": "zero"}, {"attempts": 2})
    spool.add_window(1, 0, {"samples": 7})
    spool.close()


def test_results_come_back_in_any_order(open_: Open, tmp_path: Path) -> None:
    filled(open_)
    spool = open_()
    assert spool.resumed == 2
    assert spool.read(0) == (OK | {"path": "zero"}, {"attempts": 2})
    assert spool.read(3) == (OK | {"path": "três"}, {"attempts": 1})
    assert [spool.has(i, 0) for i in range(5)] == [True, True, False, True, False]
    assert not spool.has(1, 1)
    assert spool.waiting()[1][0]["samples"] == 7


@pytest.mark.parametrize("left", range(1, 60, 7))
def test_a_torn_last_line_is_cut_off_and_writing_goes_on(left: int, open_: Open, tmp_path: Path) -> None:
    filled(open_)
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(whole[: -len(lines[-1])] + lines[-1][:-left] if left < len(lines[-1]) else whole)
    spool = open_()
    assert spool.resumed == 2
    spool.finish(4, OK, {})
    spool.close()
    assert all(json.loads(line) for line in path.read_bytes().splitlines())
    again = open_()
    assert again.resumed == 3
    assert again.read(4) == (OK, {})


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"[]\n", b"null\n", b"\x00\xff\n", b'{"plan": "b"}\n{"item": 0}\n', b"{"]
)
def test_what_is_not_of_this_plan_is_left(content: bytes, open_: Open, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(content)
    spool = open_()
    assert spool.resumed == 0
    spool.finish(0, OK, {})
    spool.close()
    assert open_().resumed == 1


def test_what_another_attempt_may_better_is_done_again(open_: Open, tmp_path: Path) -> None:
    spool = open_()
    spool.add_window(1, 0, {})
    for item, status in enumerate(("failed", "out_of_memory", "decode_error", "too_short", "empty")):
        spool.finish(item, {"status": status}, {})
    spool.close()
    again = open_()
    assert [again.has(item, 0) for item in range(5)] == [False, False, True, True, True]
    assert not again.waiting()


def test_frames_lie_at_their_place_and_are_blank_elsewhere(open_: Open, tmp_path: Path) -> None:
    spool = open_()
    assert spool.rows(2) is None
    one, two = np.full((3, 4), -1.0, np.float32), np.full((5, 4), -2.0, np.float32)
    spool.put_rows(2, two, at=8, frames=12, blank=1)  # one frame more than there is room for
    spool.put_rows(2, one, at=0, frames=12, blank=1)
    rows = open_().rows(2)
    assert rows is not None
    np.testing.assert_array_equal(rows[:3], one)
    np.testing.assert_array_equal(rows[8:], two[:4])
    np.testing.assert_array_equal(rows[3:8], np.tile(np.array([NEVER, 0, NEVER, NEVER], np.float32), (5, 1)))
    spool.finish(2, OK, {})
    assert spool.rows(2) is None
    assert not list((tmp_path / "frames").iterdir())


def test_a_disk_too_full_for_the_frames_is_an_error_before_they_are_mapped(
    open_: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To write to a map that the disk has no room for ends the process by a signal."""
    asked = []

    def full(handle: int, offset: int, length: int) -> None:
        asked.append((offset, length, os.fstat(handle).st_size))
        raise OSError(errno.ENOSPC, "No space left on device")

    spool, rows = open_(), np.ones((3, 4), np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space left"):
            spool.put_rows(2, rows, at=0, frames=12, blank=1)
    ((offset, length, size),) = asked
    assert offset == 0 and length == size > 12 * 4 * 4
    assert spool.rows(2) is None
    spool.put_rows(2, rows, at=0, frames=12, blank=1)
    found = spool.rows(2)
    assert found is not None
    np.testing.assert_array_equal(found[:3], rows)
