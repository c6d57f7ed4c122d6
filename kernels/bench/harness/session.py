"""One run of the benchmarks within its minutes: gate, ceilings, then every case in what is left of the time."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from runner.kernels.bench.harness import clock, machine, rows
from runner.kernels.bench.harness.case import Case, Inputs, Peer, outputs, own_copies
from runner.kernels.bench.harness.clock import Engine
from runner.kernels.bench.harness.gate import Gate, check, error, run_tests
from runner.kernels.bench.harness.machine import Ceilings
from runner.kernels.bench.harness.rows import Row

GATE_SHARE = 0.45  # of the minutes, at most: tests compile every kernel in every dtype
COMPILE_S = 8.0  # of a case's time must be left for torch.compile to be tried
COMPILED_WEIGHT = 3  # shares of the time that such a case gets, to the one of others
AGREES = 0.05  # a peer whose values are further from the truth computes something else


@dataclass(kw_only=True)
class Session:
    """Where rows go and how long there is."""

    root: Path  # of the checkout: tests lie there
    out: Path
    minutes: float
    device: torch.device | None  # to measure on; without one nothing is claimed
    say: Callable[[str], object]
    now: Callable[[], float] = time.monotonic
    judged: list[tuple[Case, Row]] = field(default_factory=list)
    rest: list[Row] = field(default_factory=list)
    shut: bool = False  # some gate

    def run(self, cases: Mapping[str, Sequence[Case]]) -> bool:
        """Whether every gate was passed. Rows are written as they come: a run cut short loses none."""
        end = self.now() + 60 * self.minutes
        gates = self._gates(list(cases))
        ceilings = None if self.device is None else machine.ceilings()
        about = machine.identity(ceilings) | {"minutes": self.minutes}
        waiting = [(kernel, case) for kernel, ones in cases.items() for case in ones]
        for number, (kernel, case) in enumerate(waiting):
            gate = gates[kernel]
            if self.device is None or ceilings is None or not gate.passed:
                why = "no GPU" if self.device is None else "the gate is shut"
                self._write([rows.unmeasured(kernel, case, why=why, gate=gate, machine=about)], case)
                continue
            self.say(f"{kernel}/{case.name}")
            if self.now() >= end:
                self._write([rows.unmeasured(kernel, case, why="no time left", gate=gate, machine=about)], case)
                continue
            shares = [COMPILED_WEIGHT if one.compiled else 1 for _, one in waiting[number:]]
            until = self.now() + (end - self.now()) * shares[0] / sum(shares)
            timed = Timed(kernel, case, self.device, until=until, now=self.now)
            self._write(timed.rows(gate, ceilings, about), case)
        self.say(rows.table(self.judged, self.rest))
        return not self.shut

    def _gates(self, kernels: Sequence[str]) -> Mapping[str, Gate]:
        self.say(f"tests of {len(kernels)} kernels")
        seconds = 60 * self.minutes * (1.0 if self.device is None else GATE_SHARE)
        return run_tests(kernels, root=self.root, seconds=seconds, gpu=self.device is not None)

    def _write(self, done: Sequence[Row], case: Case) -> None:
        rows.append(self.out, done)
        for row in done:
            self.shut = self.shut or not row["gate_passed"]
            if not row["measured"]:
                self.rest.append(row)
            elif row["engine"] == "own":
                self.judged.append((case, row))


class Timed:
    """One case on a device, until its share of the time is over."""

    def __init__(
        self, kernel: str, case: Case, device: torch.device, *, until: float, now: Callable[[], float]
    ) -> None:
        self.kernel, self.case, self.device = kernel, case, device
        self.until, self.now = until, now
        self.left_out: dict[str, str] = {}
        self.errors: dict[str, float] = {}

    def rows(self, gate: Gate, ceilings: Ceilings, about: Mapping[str, Any]) -> list[Row]:
        """Those of its engines and passes; one that says why where it cannot be timed."""
        here = self._checked()
        both = Gate(passed=gate.passed and here.passed, why=f"{gate.why}; {here.why} at this shape")
        found = self._engines() if here.passed else {}
        if "own" not in found:
            why = self.left_out.get("own", "wrong at this shape")
            shut = Gate(passed=False, why=both.why)
            return [rows.unmeasured(self.kernel, self.case, why=why, gate=shut, machine=about)]
        clock.take_turns(found, until=self.until, clock=self.now)
        done = {name: engine.measured for name, engine in found.items()}
        found.clear()
        released()
        words: dict[str, Any] = {
            "left_out": self.left_out,
            "errors": self.errors,
            "ceilings": ceilings,
            "machine": about,
        }
        return rows.measured(self.kernel, self.case, done, gate=both, **words)

    def _made(self) -> Inputs:
        return self.case.make(self.case.shape, self.case.dtype, self.device)

    def _checked(self) -> Gate:
        try:
            gate, self.errors = check(self.case, self._made())
        except Exception as failure:  # a kernel that raises is a result: the others go on
            return Gate(passed=False, why=one_line(failure))
        finally:
            released()
        return gate

    def _engines(self) -> dict[str, Engine]:
        """Those that work, warm; `left_out` says why the others do not."""
        sets = [self._made()]
        needed = clock.sets_needed(sets[0], machine.cache_bytes(self.device))
        sets += [self._made() for _ in range(needed - 1)]
        found: dict[str, Engine] = {}
        for peer in contenders(self.case):
            late = peer.name == "compile" and self.now() + COMPILE_S > self.until
            why = peer.missing or ("no time left to compile" if late else self._entered(peer, sets, found))
            if why:
                self.left_out[peer.name] = why
        return found

    def _entered(self, peer: Peer, sets: Sequence[Inputs], found: dict[str, Engine]) -> str | None:
        """None where it is among those found now, else why not."""
        case = self.case
        try:
            if peer.name not in self.errors:
                self.errors[peer.name] = distance(peer, case, sets[0])
            if peer.same and not self.errors[peer.name] <= AGREES:
                return f"computes something else: error {self.errors[peer.name]:.1e}"
            engine = Engine(run=peer.run, sets=[ready(peer, one) for one in sets], gradients=case.gradients)
            engine.warm_up()
        except Exception as failure:  # an engine that cannot do this shape is no reason to stop
            released()
            return one_line(failure)
        found[peer.name] = engine
        return None


def one_line(failure: Exception) -> str:
    """What went wrong, short enough for a row."""
    return " ".join(f"{type(failure).__name__}: {failure}".split())[:200]


def contenders(case: Case) -> list[Peer]:
    """Own kernel, its peers, and torch.compile last, since it takes longest to begin."""
    compiled = [] if case.compiled is None else [Peer(name="compile", run=Compiled(case.compiled))]
    return [Peer(name="own", run=case.own), *case.peers, *compiled]


class Compiled:
    """`torch.compile` of a function, from the first call on: even to prepare it takes seconds."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.compiled: Callable[..., Any] | None = None

    def __call__(self, *inputs: Any) -> Any:
        if self.compiled is None:
            self.compiled = torch.compile(self.function, dynamic=False)
        return self.compiled(*inputs)


def ready(peer: Peer, inputs: Inputs) -> Inputs:
    """The inputs as the peer wants them, its own to write into."""
    prepared = inputs if peer.prepare is None else peer.prepare(*own_copies(inputs))
    return own_copies(prepared)


def distance(peer: Peer, case: Case, inputs: Inputs) -> float:
    """Error of the peer's outputs against the reference in higher precision."""
    exact = torch.float64 if case.dtype == torch.float32 else torch.float32
    with torch.no_grad():
        truth = outputs(case.reference(*own_copies(inputs, exact)))
    with torch.set_grad_enabled(case.gradients):  # as it will be timed: it is compiled once
        ys = [y.detach() for y in outputs(peer.run(*ready(peer, inputs)))]
    return max(error(y.reshape(true.shape), true) for y, true in zip(ys, truth, strict=True))


def released() -> None:
    """Memory of what is gone is the device's again."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
