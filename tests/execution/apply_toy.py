"""An apply in a process of its own, with a toy job: python -m tests.execution.apply_toy TOY SPEC STORE [--local]."""

from __future__ import annotations

import sys

from runner.execution import choose, results
from runner.execution.carry import carry_out
from runner.plan.build import build
from runner.schema.load import load
from runner.store.local import open_store
from runner.ui.progress import Lines
from tests.execution import toys


def main(toy: str, spec: str, place: str, *words: str) -> int:
    """Apply ``spec``; returns the exit code."""
    store = open_store(place)
    plan = build(load([spec]), store)
    shown = Lines(sys.stdout)
    make = choose.executor(local="--local" in words, address=None, say=shown.say)
    done = carry_out(plan, store, make_executor=make, here=True, progress=shown, job=getattr(toys, toy))
    return results.exit_code(done)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
