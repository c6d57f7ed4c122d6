"""List runs: state, attempts, duration, and why they failed."""

from __future__ import annotations

import argparse
import json
import time

from runner.execution import runs
from runner.execution.runs import Run
from runner.report.text import duration
from runner.store.local import open_store


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the words of this verb."""
    parser.add_argument("name", nargs="?", help="only runs of this name")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="how to print the list")


def run(args: argparse.Namespace) -> int:
    """Print the runs of the store, newest first."""
    found = runs.every(open_store(args.store), args.name)
    if args.output == "json":
        print(json.dumps([run.to_json() for run in found], indent=1, ensure_ascii=False))
        return 0
    if not found:
        print(f"no run{f' of {args.name!r}' if args.name else ''} in {args.store}")
        return 0
    rows = [("RUN", "STATE", "ATTEMPTS", "TIME", "BEGAN", ""), *(_row(run) for run in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
        print("  ".join(cells).rstrip())
    return 0


def _row(run: Run) -> tuple[str, ...]:
    seconds = run.seconds()
    took = "" if seconds is None else duration(seconds)
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.created))
    return run.id, run.state, str(run.attempts), took, began, _what(run)


def _what(run: Run) -> str:
    if run.state == "succeeded":
        return run.artifact or ""
    if run.state == "failed":
        return f"{run.failure}: {run.message}" if run.failure else run.message
    return "{:,}/{:,} {}".format(*run.progress) if run.progress else ""
