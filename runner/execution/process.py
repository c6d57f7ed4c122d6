"""Processes that a run starts: none may be left behind. Uses /proc: elsewhere none is found."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from runner.store.owner import Owner

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def owner_of(data: Any) -> Owner | None:
    """The process that an event tells of, as ``vars`` of an ``Owner``; None when ``data`` is something else."""
    try:
        return Owner(**data)
    except TypeError:
        return None


def descendants(pid: int) -> list[int]:
    """Pids of all processes below ``pid``, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    queue = list(children.get(pid, []))
    while queue:
        child = queue.pop(0)
        found.append(child)
        queue.extend(children.get(child, []))
    return found


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans, so that ``end_descendants`` finds them all."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants(spare: frozenset[int] = frozenset(), *, within_s: float = 5.0) -> list[int]:
    """Kill every process below this one except ``spare``; returns those that survived (stuck in the kernel)."""
    deadline = time.monotonic() + within_s
    while True:
        left = [pid for pid in descendants(os.getpid()) if pid not in spare]
        for pid in left:
            kill(pid)
        left = [pid for pid in left if not _reap(pid)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def end(owner: Owner, *, within_s: float) -> None:
    """Wait for a process of ours to end by itself, then kill it."""
    deadline = time.monotonic() + within_s
    while owner.state() == "alive" and time.monotonic() < deadline:
        time.sleep(0.05)
    if owner.state() == "alive" and owner.pid != os.getpid():
        kill(owner.pid)


def kill(pid: int) -> None:
    """SIGKILL, when it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _reap(pid: int) -> bool:
    """Collect a dead child; whether it is gone."""
    with contextlib.suppress(ChildProcessError):  # not our child, or collected by somebody else
        os.waitpid(pid, os.WNOHANG)
    fields = _stat(pid)
    return fields is None or fields[0] == "Z"


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third on (state, parent, ...): the second may hold spaces and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
