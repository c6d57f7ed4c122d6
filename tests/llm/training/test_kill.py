"""`kill -9` at any moment: the run goes on from its last whole checkpoint, to the same bits."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from runner.llm.training.evaluate import Examiner
from tests.llm.training import small
from tests.llm.training.test_loop import lora

KILLS = 10


def run(folder: Path) -> None:
    """Train an adapter with dropout, noise and the best weights kept; leave those behind."""
    trained = lora(small.model(dropout=0.1))
    examiner = Examiner(small.steps(1, seed=9))
    done = small.fit(folder, trained, small.steps(60), examiner=examiner, every_steps=2, neftune_alpha=5.0)
    (folder / "done.txt").write_text(
        repr((done, [(name, one.tolist()) for name, one in small.weights(trained).items()]))
    )


@pytest.mark.slow
def test_ten_kills_change_no_bit(tmp_path: Path) -> None:
    draw = random.Random(0)
    began = time.monotonic()
    run(tmp_path / "a")
    whole_s = time.monotonic() - began
    kills = resumed = 0  # times that it was killed, and had something to go on from
    while kills < KILLS:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run(tmp_path / "b")
                code = 0
            finally:
                os._exit(code)
        time.sleep(draw.uniform(0, 0.7) * whole_s)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):  # it was quicker: the next begins anew
            assert os.waitstatus_to_exitcode(status) == 0
            shutil.rmtree(tmp_path / "b")
            continue
        kills += 1
        resumed += any((tmp_path / "b").glob("step-*"))
    assert resumed > KILLS / 3  # or nothing was tried
    run(tmp_path / "b")
    for name in ("done.txt", "training.jsonl"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text(), name
    assert sorted(one.name for one in (tmp_path / "b").glob("step-*")) == sorted(
        one.name for one in (tmp_path / "a").glob("step-*")
    )
