"""Ends a ray of ours when its apply has ended in any way, kill -9 included. Standard library alone.

Ray's daemons go when the driver is killed, but its helpers stay for a minute and a worker for some seconds (2.60).
Every one of them carries the path of the apply's token in its environment. Its agents write their title over the first
part of that, so it may be gone: they are told by their logs, which lie in the token's folder.
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
    for _ in range(ROUNDS):
        found = [pid for pid in _processes() if _is_of(token, pid)]
        if not found:
            break
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE_S)
    shutil.rmtree(token.parent, ignore_errors=True)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if int(entry.name) != os.getpid()]


def _is_of(token: Path, pid: int) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        if os.fsencode(f"{TOKEN}={token}") in environment.split(b"\0"):
            return True
        written_over = environment.startswith(b"\0")
        return written_over and any(_lies_in(token.parent, file) for file in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it ended, or belongs to somebody else
        return False


def _lies_in(folder: Path, link: Path) -> bool:
    with contextlib.suppress(OSError):  # closed meanwhile
        return str(link.readlink()).startswith(f"{folder}/")
    return False


if __name__ == "__main__":
    sys.stdin.buffer.read()
    clean(Path(sys.argv[1]))
