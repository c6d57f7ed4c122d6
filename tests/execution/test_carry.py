"""The end of an apply: what was done is told, and no process stays, whatever comes while the executor closes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.execution.failures import Stop
from runner.execution.inline import Inline
from runner.execution.order import Executor
from tests.execution import toys
from tests.execution.helpers import applied, no_last_resort, planned, spec


class _Closing(Inline):
    """Does something of a test's when it is closed."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__(hard=no_last_resort)
        self._act = act

    def close(self) -> None:
        self._act()
        super().close()


def _maker(act: Callable[[], None]) -> Callable[[Callable[[Stop], None]], Executor]:
    return lambda _hard: _Closing(act)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_after_success_changes_nothing(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # must not end the tests, should it come through
    try:
        plan, store = planned(tmp_path, spec())
        (result,) = applied(plan, store, toys.write, make=_maker(lambda: os.kill(os.getpid(), number)))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (result.action, result.artifact, result.exit_code) == ("created", "toy@v1", 0)


def test_processes_are_ended_even_when_the_executor_does_not_close(tmp_path: Path) -> None:
    left: list[subprocess.Popen[bytes]] = []

    def act() -> None:
        left.append(subprocess.Popen(["sleep", "1000"], start_new_session=True))
        raise RuntimeError("ray is gone")

    plan, store = planned(tmp_path, spec())
    with pytest.raises(RuntimeError, match="ray is gone"):
        applied(plan, store, toys.write, make=_maker(act))
    (sleeper,) = left
    sleeper.wait(timeout=5)
    assert not Path(f"/proc/{sleeper.pid}").exists()
