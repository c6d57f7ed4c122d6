"""What is written down step by step: nothing twice, nothing torn, and numbers that JSON knows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from runner.llm.packing.step import Step
from runner.llm.training.journal import SPEED, TRAINING, Journal
from runner.llm.training.meter import Meter
from runner.llm.training.stops import Stops
from runner.llm.training.watch import Watch, duration
from tests.llm.training import small


def test_a_journal_goes_on_after_its_checkpoint(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin(0)
    for step in range(1, 6):
        journal.add({"step": step, "loss": step / 2}, {"step": step})
    journal.close()
    for name, torn in ((TRAINING, b'{"step": 6, "lo'), (SPEED, b"\0\0\0\n")):
        with (tmp_path / name).open("ab") as file:
            file.write(torn)
    journal.begin(9)
    assert [row["step"] for row in journal.rows()] == [1, 2, 3, 4, 5]
    journal.begin(3)
    journal.add({"step": 4, "loss": 7.0}, {"step": 4})
    journal.sync()
    assert list(journal.rows()) == [{"step": n, "loss": n / 2} for n in (1, 2, 3)] + [{"step": 4, "loss": 7.0}]
    assert [row["step"] for row in small.journal(tmp_path, SPEED)] == [1, 2, 3, 4]
    journal.close()


def test_other_processes_write_nothing() -> None:
    journal = Journal(None)
    journal.begin(3)
    journal.add({"step": 4}, {"step": 4})
    journal.sync()
    assert list(journal.rows()) == []


def test_a_gradient_that_fp16_cannot_hold_is_null(tmp_path: Path) -> None:
    journal, heard = Journal(tmp_path), small.Heard()
    journal.begin(0)
    watch = Watch(
        total=1,
        journal=journal,
        meter=Meter(operations=None, peak=None, device="cpu"),
        stops=Stops(precision="fp16"),
        tell=heard.tell(),
    )
    watch.begin(Step(number=0, batches=(), targets=3, tokens=4, computed=4, documents=1), began=0.0)
    watch.end(1, loss=1.0, grad_norm=np.inf, rate=1e-3)
    journal.close()

    def refused(word: str) -> None:
        raise AssertionError(word)

    line = (tmp_path / TRAINING).read_text(encoding="utf-8")
    row = json.loads(line, parse_constant=refused)
    assert row == {"step": 1, "loss": 1.0, "grad_norm": None, "learning_rate": 1e-3, "tokens": 4, "targets": 3}
    assert "grad_norm" not in dict(heard.metrics)


def test_time_left_is_said_as_people_do() -> None:
    assert [duration(one) for one in (0.2, 59, 61, 3599, 3600, 12345)] == [
        "0 s", "59 s", "1 min", "1 h 0 min", "1 h 0 min", "3 h 26 min",
    ]  # fmt: skip
