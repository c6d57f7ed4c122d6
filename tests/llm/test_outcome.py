"""What is said of a run: counts of streams, and a report that opens whatever the run's length."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from runner.context import Result
from runner.llm import outcome
from runner.llm.data.skipped import Skipped
from runner.llm.packing.pieces import Cut
from runner.llm.training.session import Done

PREPARED: Any = SimpleNamespace(parameters=100, trainable=10, ledger=[])


def told(steps: int, *, blocks: Any = None, answers: int = 0, every: int = 10) -> Result:
    asked = [{"prompt": f"{one}", "answer": "b"} for one in range(answers)]
    history = [{"step": step, "validation_loss": 1.0, "samples": asked} for step in range(0, steps + 1, every)]
    done = Done(history=history, best=None, steps=steps, planned=steps, stopped=False, why="", state=None)
    learned: Any = SimpleNamespace(train=[], validation=[], skipped=Skipped("skip"), blocks=blocks)
    return outcome.result(
        prepared=PREPARED,
        done=done,
        rows=[{"step": one, "loss": 2.0, "grad_norm": 1.0, "tokens": 8, "targets": 5} for one in range(1, steps + 1)],
        cut=Cut(),
        learned=learned,
        lines=(),
        said=(),
        timings={},
    )


def test_of_a_stream_is_said_what_was_learned_and_not_what_there_is() -> None:
    stream, read = told(20, blocks=iter), told(20)
    assert set(read.metrics) - set(stream.metrics) == {"documents_train", "tokens_train", "targets_train"}
    assert (stream.metrics["tokens_learned"], stream.metrics["targets_learned"]) == (160, 100)


@pytest.mark.parametrize("steps", [1, 1999, 2000, 2001, 9999, 100_000])
def test_a_plot_of_many_steps_is_thinned_to_its_last(steps: int) -> None:
    plots = {plot.title: plot for plot in told(steps, every=1).plots}
    for title, first in (("Loss on the training data", 1), ("Loss on the validation data", 0)):
        plot = plots[title]
        assert len(plot.x) == len(plot.y) <= outcome.POINTS
        assert plot.x[-1] == steps
        assert len({after - before for before, after in zip(plot.x, plot.x[1:], strict=False)}) <= 1
        many = steps + 1 - first > outcome.POINTS
        assert (", one in " in plot.x_label) == many
        assert many or plot.x == list(range(first, steps + 1))


def test_of_many_answers_the_last_are_shown() -> None:
    few, many = (
        next(table for table in told(100, answers=count).tables if table.title == "Answers while it learned")
        for count in (2, 30)
    )
    assert (len(few.rows), few.note) == (22, "greedy")
    assert (len(many.rows), many.rows[-1][:2]) == (outcome.ANSWERS, (100, "29"))
    assert many.note == "greedy; the last 200 of 330, all are in samples.jsonl"
