"""Ends a ray of ours when its apply has ended in any way, kill -9 included. Standard library alone.

Ray's daemons go when the driver is killed, but its helpers stay for a minute and a worker for some seconds (2.60).
Every one of them carries the path of the apply's token in its environment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

TOKEN = "RAY_AUTH_TOKEN_PATH"
ROUNDS = 25  # a process may start another while it is killed
PAUSE_S = 0.2


def start(token: Path) -> subprocess.Popen[bytes]:
    """Start the guard of the ray whose processes carry ``token``; it waits until this process closes its input."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(token)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name != TOKEN},
        start_new_session=True,  # Ctrl-C in the terminal is not for it
    )


def stop(guard: subprocess.Popen[bytes]) -> None:
    """Let the guard do its work, and wait until it is done."""
    assert guard.stdin is not None
    guard.stdin.close()
    guard.wait(timeout=2 * ROUNDS * PAUSE_S)


def clean(token: Path) -> None:
    """Kill what carries ``token``, and remove its folder."""
    setting = os.fsencode(f"{TOKEN}={token}")
    for _ in range(ROUNDS):
        found = [pid for pid in _processes() if setting in _environment(pid)]
        if not found:
            break
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE_S)
    shutil.rmtree(token.parent, ignore_errors=True)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if int(entry.name) != os.getpid()]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it ended, or belongs to somebody else
        return []


if __name__ == "__main__":
    sys.stdin.buffer.read()
    clean(Path(sys.argv[1]))
