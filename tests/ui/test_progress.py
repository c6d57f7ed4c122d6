"""What is shown: bars on a terminal, lines elsewhere, nothing for JSON."""

from __future__ import annotations

import io
from typing import Any

import pytest

from runner.ui import progress
from runner.ui.progress import Bars, Lines, Silence, told


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _step(done: int, total: int = 10) -> dict[str, Any]:
    return {"type": "progress", "done": done, "total": total, "unit": "recordings"}


def test_the_kind_of_output_decides() -> None:
    terminal = _Terminal()
    bars = progress.choose(terminal, silent=False)
    bars.close()
    assert isinstance(bars, Bars)
    assert isinstance(progress.choose(io.StringIO(), silent=False), Lines)
    assert isinstance(progress.choose(terminal, silent=True), Silence)


def test_lines_of_progress_come_seldom_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 9.0, 11.0, 12.0, 13.0])
    monkeypatch.setattr("runner.ui.progress.time.monotonic", lambda: next(clock))
    out = io.StringIO()
    lines = Lines(out)
    for done in (1, 2, 3, 4, 5, 10):
        lines.event("a", _step(done))
    assert out.getvalue().splitlines() == [
        "a: 1/10 recordings (10%)",
        "a: 4/10 recordings (40%)",
        "a: 10/10 recordings (100%)",
    ]


def test_bars_show_steps_and_words_above_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out = _Terminal()
    bars = Bars(out)
    bars.event("podcast", {"type": "state", "state": "running", "attempt": 1})
    bars.event("podcast", _step(3))
    bars.event("podcast", {"type": "log", "text": "[bold]as it is[/bold]"})
    bars.event("podcast", _step(10))
    bars.event("podcast", {"type": "state", "state": "succeeded", "artifact": "podcast@v1"})
    bars.close()
    shown = out.getvalue()
    assert "3/10" in shown or "10/10" in shown
    assert "podcast: [bold]as it is[/bold]" in shown
    assert "podcast: done, podcast@v1" in shown


def test_a_reader_who_went_away_does_not_stop_the_work() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Lines(Gone()).say("hello")


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"type": "state", "state": "queued", "attempt": 1}, ""),
        ({"type": "state", "state": "queued", "attempt": 1, "wait_s": 5.0}, "tries again in 5 s"),
        ({"type": "state", "state": "running", "attempt": 1}, "running"),
        ({"type": "state", "state": "running", "attempt": 2}, "running, attempt 2"),
        ({"type": "state", "state": "failed", "failure": "NaN", "message": "loss"}, "failed (NaN): loss"),
        ({"type": "state", "state": "cancelled"}, "cancelled"),
        (_step(1234, 5000), "1,234/5,000 recordings (25%)"),
        (_step(0, 0), "0/0 recordings"),
        ({"type": "error", "attempt": 1, "failure": "NaN", "message": "x", "again": True}, "attempt 1 failed (NaN): x"),
        ({"type": "error", "attempt": 1, "failure": "NaN", "message": "x", "again": False}, ""),
        ({"type": "ledger", "what": "packing", "applied": False, "why": "no GPU"}, "packing skipped: no GPU"),
        ({"type": "metric", "name": "loss", "value": 1}, ""),
        ({"type": "from a newer version"}, ""),
    ],
    ids=str,
)
def test_every_event_has_its_words(event: dict[str, Any], text: str) -> None:
    assert told(event) == text
