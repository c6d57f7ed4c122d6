"""A plugin of pytest that writes each test's name and outcome down at once, so that a time limit loses none of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def pytest_runtest_logreport(report: Any) -> None:
    """One line of JSON for the call of a test, and for a set-up or an end that failed or skipped it."""
    if "PYTEST_XDIST_WORKER" in os.environ or (report.when != "call" and report.passed):
        return
    name = report.nodeid.partition("::")[2].partition("[")[0]
    with Path(os.environ["BENCH_REPORT"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"test": name, "outcome": report.outcome}) + "\n")
