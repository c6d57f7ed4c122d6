"""CPU-seconds of the verbs that people type all day. The best of up to twenty: a busy neighbour inflates the others."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.helpers import ROOT, RUNNER, environment


def cpu_seconds(words: list[str]) -> float:
    """User and system time of one run of the verb."""
    process = subprocess.Popen(
        [*RUNNER, *words], cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait for it again
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize(
    ("words", "limit"),
    [(["--help"], 0.2), (["validate", str(Path("specs") / "asr-transcribe.yaml")], 0.35)],
    ids=["help", "validate"],
)
def test_start_up(words: list[str], limit: float) -> None:
    best = math.inf
    for _ in range(20):
        best = min(best, cpu_seconds(words))
        if best <= limit:
            break
    print(f"runner {words[0]}: {best:.3f} CPU-s (limit {limit}), Python {sys.version.split()[0]}")
    assert best <= limit
