"""Every kernel has cases; at a tiny size on a CPU, own function and peers compute what the reference does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runner.kernels.bench.__main__ import cases_of, names
from runner.kernels.bench.harness.case import PASSES, Case, Peer, leaves, outputs
from runner.kernels.bench.harness.gate import check, error
from runner.kernels.bench.harness.session import AGREES, ready

ROOT = Path(__file__).parents[3]
CASES = [pytest.param(case, id=f"{kernel}-{case.name}") for kernel in names() for case in cases_of(kernel)]
CPU = torch.device("cpu")


def test_every_kernel_has_a_file_of_cases() -> None:
    assert names() == sorted(path.stem for path in (ROOT / "kernels" / "ops").glob("[!_]*.py"))
    assert all(cases_of(kernel) for kernel in names())


@pytest.mark.parametrize("case", CASES)
def test_a_case_and_its_peers_are_about_the_same(case: Case) -> None:
    assert set(case.judged) <= set(PASSES)
    assert set(case.tiny) == set(case.shape)
    assert case.amount("forward") > 0
    assert case.gradients is bool(leaves(case.make(case.tiny, torch.float32, CPU)))
    inputs = case.make(case.tiny, case.dtype, CPU)
    gate, errors = check(case, inputs)
    assert gate.passed, (gate.why, errors)
    exact = case.make(case.tiny, torch.float32, CPU)
    truth = outputs(case.reference(*exact))
    peers = [peer for peer in case.peers if peer.missing is None and peer.name != "liger" and not_only_for_gpus(peer)]
    compiled = [Peer(name="compile", run=case.compiled)] if case.compiled else []  # as it is: compiling takes a minute
    for peer in [*peers, *compiled]:
        mine = ready(peer, exact)
        ys = outputs(peer.run(*mine))
        for y, true in zip(ys, truth, strict=True):
            assert error(y.reshape(true.shape), true) <= (1e-4 if peer.same else AGREES), peer.name
        if case.gradients:
            wanted = [y for y in ys if y.requires_grad]
            torch.autograd.grad(wanted, leaves(mine), [torch.ones_like(y) for y in wanted], allow_unused=True)


def not_only_for_gpus(peer: Peer) -> bool:
    return peer.name not in {"sdpa-cudnn", "sdpa-efficient", "sdpa-flash"}
