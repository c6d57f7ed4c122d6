"""Print the log of a run, or its events; -f goes on until the run ends."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from runner.execution import capture, events, runs
from runner.execution.events import Event
from runner.execution.runs import Run
from runner.store.local import Store, open_store
from runner.ui.progress import told

LOOK_S = 0.2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the words of this verb."""
    parser.add_argument("run", metavar="RUN|NAME", help="run id, or a name for its newest run")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    parser.add_argument("--events", action="store_true", help="the events in words instead of the log")
    parser.add_argument(
        "-o", "--output", choices=["text", "json"], default="text", help="json: the events, one object a line"
    )


def run(args: argparse.Namespace) -> int:
    """Print what the run said so far, then what it says."""
    store = open_store(args.store)
    found = runs.find(store, args.run)
    if args.output == "json":
        for event in _events(found, _looks(store, found, follow=args.follow)):
            print(json.dumps(event, ensure_ascii=False), flush=True)
    elif args.events:
        for event in _events(found, _looks(store, found, follow=args.follow)):
            _print_event(event)
    else:
        for text in _log(found, _looks(store, found, follow=args.follow)):
            sys.stdout.write(text)
            sys.stdout.flush()
    return 0


def _events(run: Run, looks: Iterator[None]) -> Iterator[Event]:
    offset = 0
    for _ in looks:
        found, offset = events.read(run.folder / events.FILE, offset)
        yield from found


def _log(run: Run, looks: Iterator[None]) -> Iterator[str]:
    offset = 0
    for _ in looks:
        data = _rest(run.folder / capture.FILE, offset)
        offset += len(data)
        yield data.decode("utf-8", "replace")


def _looks(store: Store, run: Run, *, follow: bool) -> Iterator[None]:
    """Once, or again and again until a look after the run's end. What ends it is its state, never the end of a log."""
    followed = runs.Followed(store, run.id)
    while follow and not (followed.look() or run).is_over:
        yield
        time.sleep(LOOK_S)
    yield


def _rest(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""


def _print_event(event: Event) -> None:
    text = told(event)
    if event["type"] == "metric":
        text = f"{event['name']} = {event['value']}"
    if text or event["type"] == "state":
        print(f"{time.strftime('%H:%M:%S', time.localtime(event['t']))}  {event['type']:<8}  {text or event['state']}")
