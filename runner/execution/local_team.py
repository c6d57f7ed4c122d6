"""A team of new processes on this machine, without ray: `python -m runner.execution.local_team ROOM RANK` is one.

They end with the process that started them, however it ends, and Ctrl-C in its terminal does not reach them. Not
multiprocessing: its tracker is one more process, which an apply would end with the others and warn of in the next.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runner.context import Context
from runner.execution import team
from runner.execution.share import Share
from runner.execution.team import SEAT, Seat

HOST = "127.0.0.1"
LOOK_S = 0.1
Member = subprocess.Popen[bytes]


class LocalTeam:
    """``share.workers`` processes; see ``runner.context.Team``."""

    def __init__(self, share: Share, *, timeout_s: float, check: Callable[[], None]) -> None:
        self.size = share.workers
        self._share = share
        self._timeout_s = timeout_s
        self._check = check

    def run(self, work: Callable[[Context], Any], ctx: Context) -> Any:
        """Call ``work`` in each process; what it returned in the first."""
        members: list[Member] = []
        with team.seats(work, ctx, share=self._share, timeout_s=self._timeout_s) as seat:
            seat.put(SEAT, pickle.dumps(seat))
            try:
                for rank in range(self.size):
                    members.append(_start(seat, rank))
                died = self._watch(members)
            finally:
                for member in members:
                    _end(member)
            return team.answer(seat, died=died)

    def _watch(self, members: Sequence[Member]) -> str:
        """Wait until all have ended, or one has ended badly; what is known of one that was killed."""
        while True:
            self._check()
            codes = [member.poll() for member in members]
            if any(codes) or None not in codes:
                break
            time.sleep(LOOK_S)
        killed = [(rank, -code) for rank, code in enumerate(codes) if code is not None and code < 0]
        return "; ".join(f"process {rank} was ended by {signal.Signals(number).name}" for rank, number in killed)


def _start(seat: Seat, rank: int) -> Member:
    return subprocess.Popen(
        # -P: no module of the folder that the apply was started in
        [sys.executable, "-P", "-m", "runner.execution.local_team", str(seat.room), str(rank)],
        stdin=subprocess.PIPE,  # open for as long as this process lives
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )


def _end(member: Member) -> None:
    """Kill a process and those that it started."""
    assert member.stdin is not None
    with contextlib.suppress(ProcessLookupError):  # it and all of its own have ended
        os.killpg(member.pid, signal.SIGKILL)
    member.stdin.close()
    member.wait()


def main(room: str, rank: str) -> int:
    """One process of a team; returns the exit code."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # 2.5 CPU-s for torch, which the process that starts a team need not load
    from runner.execution import member  # noqa: PLC0415

    seat: Seat = pickle.loads((Path(room) / SEAT).read_bytes())
    place = member.Place(rank=int(rank), local_rank=int(rank), local_size=seat.share.workers, host=HOST)
    return 0 if member.sit(seat, place) else 1


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    done = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(done)  # what torch would still tidy up may wait for the others
