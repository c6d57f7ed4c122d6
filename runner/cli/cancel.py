"""End a run cleanly; the next apply goes on where it was."""

from __future__ import annotations

import argparse
import json
import time

from runner.execution import events, runs
from runner.execution.alarm import CANCEL, GRACE_S
from runner.execution.events import Writer
from runner.execution.runs import Run
from runner.store.local import Store, open_store

WAIT_S = 4 * GRACE_S  # an attempt has two graces, and the apply ends it after the third
LOOK_S = 0.1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the words of this verb."""
    parser.add_argument("run", metavar="RUN|NAME", help="run id, or a name for its newest run")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text", help="how to print the answer")


def run(args: argparse.Namespace) -> int:
    """Ask the run to end and wait until it has; 0 when nobody works on it any more, 1 when it did not stop in time."""
    store = open_store(args.store)
    found = runs.find(store, args.run)
    was_over = found.is_over
    now = _mark(store, found) if found.state == "interrupted" else found if was_over else _ask(store, found)
    if args.output == "json":
        print(json.dumps({"run": now.id, "state": now.state, "was_over": was_over}))
    elif was_over and found.state != "interrupted":
        print(f"{now.id} is {now.state} already")
    elif now.is_over:
        print(f"{now.id} is {now.state}")
    else:
        print(f"{now.id} was asked to end and has not after {WAIT_S:g} s; it is still {now.state}")
    return 0 if now.is_over else 1


def _ask(store: Store, run: Run) -> Run:
    (run.folder / CANCEL).touch()
    deadline = time.monotonic() + WAIT_S
    followed = runs.Followed(store, run.id)
    while not (now := followed.look() or run).is_over and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    return _mark(store, now) if now.state == "interrupted" else now


def _mark(store: Store, run: Run) -> Run:
    """Write the end that the killed apply could not write."""
    writer = Writer(run.folder / events.FILE, run.id)
    writer.write("state", state="cancelled", attempt=run.attempts)
    writer.close()
    return runs.of_id(store, run.id) or run
