"""Live progress, made of events alone: bars on a terminal, plain lines elsewhere, nothing where only JSON may be."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

Event = Mapping[str, Any]
EVERY_S = 10.0  # between two plain lines of progress of one step


class Progress(Protocol):
    """Shows what happens. May be called from several threads."""

    def say(self, text: str) -> None:
        """A line of the apply itself."""
        ...

    def event(self, name: str, event: Event) -> None:
        """An event of the step ``name``."""
        ...

    def close(self) -> None:
        """Nothing more will happen."""
        ...


class Silence:
    """For ``-o json``: nothing but the result."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def event(self, name: str, event: Event) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Do nothing."""


class Lines:
    """One line for each thing worth telling, for logs and pipes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Print ``text``."""
        with contextlib.suppress(BrokenPipeError):  # the reader went away: the work goes on
            self._out.write(text + "\n")
            self._out.flush()

    def event(self, name: str, event: Event) -> None:
        """Print what ``event`` tells; progress at most every ten seconds."""
        if event["type"] == "progress":
            now = time.monotonic()
            last = self._last.get(name)
            if event["done"] < event["total"] and last is not None and now - last < EVERY_S:
                return
            self._last[name] = now
        text = told(event)
        if text:
            self.say(f"{name}: {text}")

    def close(self) -> None:
        """Nothing is open."""


class Bars:
    """A bar for each running step, with the lines above them."""

    def __init__(self, out: TextIO) -> None:
        # only where there is a terminal to draw on: rich takes 0.1 CPU-s to import
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: PLC0415
        from rich.progress import Progress as Rich  # noqa: PLC0415

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
        )
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        self._rich = Rich(
            *columns, *times, console=Console(file=out), transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._bars: dict[str, Any] = {}
        self._rich.start()

    def say(self, text: str) -> None:
        """Print ``text`` above the bars."""
        self._rich.console.print(text, markup=False, highlight=False)

    def event(self, name: str, event: Event) -> None:
        """Move the bar of the step, or print what ``event`` tells."""
        if event["type"] == "progress":
            now = {"completed": event["done"], "total": event["total"], "unit": event["unit"]}
            if name in self._bars:
                self._rich.update(self._bars[name], **now)
            else:
                self._bars[name] = self._rich.add_task(name, **now)
            return
        if event["type"] == "state" and event["state"] not in {"queued", "running"} and name in self._bars:
            self._rich.remove_task(self._bars.pop(name))
        text = told(event)
        if text:
            self.say(f"{name}: {text}")

    def close(self) -> None:
        """Take the bars away."""
        self._rich.stop()


def choose(out: TextIO, *, silent: bool) -> Progress:
    """What suits ``out``."""
    if silent:
        return Silence()
    return Bars(out) if out.isatty() else Lines(out)


def told(event: Event) -> str:
    """One line for people; "" for what is not worth a line."""
    match event["type"]:
        case "state":
            return _state(event)
        case "progress":
            share = f" ({event['done'] / event['total']:.0%})" if event["total"] else ""
            return f"{event['done']:,}/{event['total']:,} {event['unit']}{share}"
        case "log":
            return str(event["text"])
        case "ledger":
            return f"{event['what']} {'applied' if event['applied'] else 'skipped'}: {event['why']}"
        case "error" if event.get("again"):  # the last one is told with the state
            return f"attempt {event['attempt']} failed ({event['failure']}): {event['message']}"
        case _:
            return ""


def _state(event: Event) -> str:
    attempt = event.get("attempt", 1)
    match event["state"]:
        case "queued" if event.get("wait_s"):
            return f"tries again in {event['wait_s']:g} s"
        case "running" if attempt > 1:
            return f"running, attempt {attempt}"
        case "succeeded":
            return f"done, {event['artifact']}"
        case "failed":
            return f"failed ({event['failure']}): {event['message']}"
        case "running" | "cancelled":
            return str(event["state"])
        case _:
            return ""
