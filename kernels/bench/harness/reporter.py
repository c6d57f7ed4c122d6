"""A plugin of pytest that writes down which tests there are and how each ended, at once: a time limit loses none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def pytest_collection_finish(session: Any) -> None:
    """One line with the name of every test; of processes that share them, all have the same and the first says so."""
    if session.items and os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        _write({"collected": [_name(item.nodeid) for item in session.items]})


def pytest_runtest_logreport(report: Any) -> None:
    """One line for the call of a test, or for a set-up that failed or skipped it; one more where its end failed."""
    if "PYTEST_XDIST_WORKER" not in os.environ and (report.when == "call" or not report.passed):
        _write({"test": _name(report.nodeid), "outcome": report.outcome, "end": report.when == "teardown"})


def _name(nodeid: str) -> str:
    return nodeid.partition("::")[2].partition("[")[0]


def _write(line: dict[str, Any]) -> None:
    with Path(os.environ["BENCH_REPORT"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
