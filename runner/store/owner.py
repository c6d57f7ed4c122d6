"""Which process is this, and does that one still live? Answers only what this machine can know."""

from __future__ import annotations

import getpass
import hashlib
import os
import secrets
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

TEMP, STAGING = ".tmp-", ".staging-"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process, told apart from every other one with the same number."""

    host: str
    boot: str  # boot id, and the namespace that process numbers belong to
    pid: int
    start: str  # start time in clock ticks since boot: a number that was given again has another
    user: str

    def state(self) -> Literal["alive", "dead", "elsewhere"]:
        """``elsewhere``: its numbers mean nothing here, only time can tell."""
        here = _host(), _boot()
        if (self.host, self.boot) != here:
            return "elsewhere"
        return "alive" if _start(self.pid) == self.start else "dead"


def me() -> Owner:
    """This process."""
    return Owner(host=_host(), boot=_boot(), pid=os.getpid(), start=_start(os.getpid()) or "", user=_user())


def unique(prefix: str) -> str:
    """A file name that nobody else makes and that says which process made it."""
    owner = me()
    return f"{prefix}{_machine()}.{owner.pid}.{owner.start}.{secrets.token_hex(4)}"


def maker_state(name: str) -> Literal["alive", "dead", "elsewhere"]:
    """State of the process that made a name with ``unique``."""
    machine, pid, start, *_ = [*name.rpartition("-")[2].split("."), "", ""]
    if machine != _machine() or not pid.isdigit():
        return "elsewhere"
    return "alive" if _start(int(pid)) == start else "dead"


@cache
def _host() -> str:
    return socket.gethostname()


@cache
def _boot() -> str:
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if not boot.exists():
        return ""
    return f"{boot.read_text().strip()} {space.readlink()}"


@cache
def _machine() -> str:
    return hashlib.sha256(f"{_host()} {_boot()}".encode()).hexdigest()[:8]


@cache
def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _start(pid: int) -> str | None:
    """Start time of a process; "" where the system does not tell; None when it does not live (a zombie does not)."""
    if not Path("/proc/self/stat").exists():
        return _start_without_proc(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the command before may hold blanks and brackets
    return None if fields[0] in "ZX" else fields[19]


def _start_without_proc(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return ""
    return ""
