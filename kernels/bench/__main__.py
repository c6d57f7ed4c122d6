"""Gate, time and write down every kernel: on a machine with a GPU, from a checkout, within eight minutes:

    PYTHONPATH=. python -m runner.kernels.bench --minutes 8

Needs torch, triton and pytest; takes transformers, liger-kernel, bitsandbytes and flash-attn where they are installed,
and pytest-xdist, without which the tests take the time of the cases. Eight minutes have not been tried on a GPU.
Rows go to kernels/bench/results/<device>.jsonl. Exit code 1 where a gate was not passed.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from runner.kernels.bench.harness.case import Case
from runner.kernels.bench.harness.machine import KERNELS, identity, slug
from runner.kernels.bench.harness.session import Session
from runner.kernels.launch import interpreted

BENCH = KERNELS / "bench"
MINUTES = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m runner.kernels.bench", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--kernel", nargs="+", choices=names(), metavar="NAME", help=f"of {', '.join(names())}")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all of it, compiling included (default 8)")
    parser.add_argument("--out", type=Path, help="append rows to this file instead")
    asked = parser.parse_args(arguments)
    if not 0 < asked.minutes < MINUTES:  # nan too
        parser.error(f"--minutes must be above 0 and below {MINUTES}, got {asked.minutes}")
    if torch.cuda.is_available() and interpreted():
        parser.error("TRITON_INTERPRET=1 would time the interpreter: unset it.")
    out = asked.out or BENCH / "results" / f"{slug(identity(None)['device'])}.jsonl"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("a").close()
    except OSError as error:
        parser.error(f"--out: rows cannot be written to {out}: {error.strerror}")
    cases = {name: cases_of(name) for name in asked.kernel or names()}
    device = torch.device("cuda") if torch.cuda.is_available() else None
    # the gate's tests are a group of processes of their own, which is ended on the way out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    passed = Session(root=KERNELS.parent, out=out, minutes=asked.minutes, device=device, say=say).run(cases)
    say(f"rows are in {out}")
    return 0 if passed else 1


def names() -> list[str]:
    """The kernels that have a file here."""
    return sorted(path.stem for path in BENCH.glob("[!_]*.py"))


def cases_of(kernel: str) -> Sequence[Case]:
    """What its file lists."""
    cases: Sequence[Case] = importlib.import_module(f"runner.kernels.bench.{kernel}").CASES
    return cases


def say(text: str) -> None:
    """A line on the screen, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
