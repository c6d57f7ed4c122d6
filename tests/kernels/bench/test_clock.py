"""The clock, with a host's in place of the device's events."""

from __future__ import annotations

import time

import pytest
import torch

from runner.kernels.bench.__main__ import cases_of
from runner.kernels.bench.harness.case import Case
from runner.kernels.bench.harness.clock import Engine, Measured
from runner.kernels.bench.harness.machine import ceilings
from runner.kernels.bench.harness.session import contenders, ready

CPU = torch.device("cpu")


class Event:
    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: Event) -> float:
        return (end.at - self.at) * 1e3


@pytest.fixture(autouse=True)
def _events_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    for name in ("synchronize", "reset_peak_memory_stats", "_sleep"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 5)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 12)


@pytest.mark.parametrize("case", [cases_of("rope")[0], cases_of("paged_attention")[0]], ids=["rope", "paged"])
def test_every_pass_of_a_run_is_timed(case: Case) -> None:
    inputs = [case.make(case.tiny, torch.float32, CPU) for _ in range(2)]
    for peer in contenders(case)[:2]:
        if peer.name.startswith("sdpa-"):  # another backend, which no CPU has
            continue
        engine = Engine(run=peer.run, sets=[ready(peer, one) for one in inputs], gradients=case.gradients)
        engine.warm_up()
        engine.round(3)
        engine.round(3)
        assert set(engine.measured.times) == set(engine.measured.peaks) == set(case.passes)
        assert set(engine.measured.peaks.values()) == {7}
        assert engine.measured.summary("forward")["runs"] == 6
        for parts in zip(*(engine.measured.times[which] for which in case.passes), strict=True):
            assert sum(parts[:-1]) == pytest.approx(parts[-1]) if case.gradients else len(parts) == 1


def test_a_summary_is_the_median_with_its_spread() -> None:
    summary = Measured(times={"both": [float(n) for n in range(1, 102)]}).summary("both")
    assert summary == {"median_ms": 51.0, "p20_ms": 20.4, "p80_ms": 81.6, "runs": 101}
    assert Measured(times={"both": [3.0]}).summary("both")["p80_ms"] == 3.0


def test_ceilings_are_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**24, 2**24))
    empty, randn = torch.empty, torch.randn
    monkeypatch.setattr(torch, "empty", lambda *sizes, **options: empty(*sizes, **options | {"device": "cpu"}))
    monkeypatch.setattr(torch, "randn", lambda *_, device: randn(8, 8))
    found = ceilings()
    assert found.copy_bytes_per_s > 1e6
    assert found.share("memory", found.copy_bytes_per_s, 1000.0) == pytest.approx(1.0)
    assert found.share("matrix", found.matrix_flops_per_s, 2000.0) == pytest.approx(0.5)
