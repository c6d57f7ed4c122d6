"""What a step takes, and what fits beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.execution.share import Share, share_of, timeout_s
from runner.plan.capacity import Capacity, Node
from runner.plan.step import Step
from tests.execution.helpers import planned, spec

TWO = Capacity(nodes=(Node(cpus=2, memory_gb=8),))


@pytest.fixture
def step(tmp_path: Path) -> Step:
    plan, _ = planned(tmp_path, spec())
    return plan.steps[0]


def _with(step: Step, **compute: Any) -> Step:
    return replace(step, spec={**step.spec, "compute": {**step.spec["compute"], **compute}})


@pytest.mark.parametrize(
    ("compute", "cores", "expected"),
    [
        ({"cpus": None, "workers": 1}, 8, (8, 8)),
        ({"cpus": None, "workers": 3}, 8, (2, 2)),
        ({"cpus": None, "workers": 4}, 2, (0.5, 1)),
        ({"cpus": None, "workers": 3}, 2, (0.6666, 1)),
        ({"cpus": 2, "workers": 2}, 8, (2, 2)),
    ],
)
def test_cpus_left_out_means_all_cores_shared(
    step: Step, compute: dict[str, Any], cores: int, expected: tuple[float, int]
) -> None:
    capacity = Capacity(nodes=(Node(cpus=cores, memory_gb=8), Node(cpus=1, memory_gb=1)))
    share = share_of(_with(step, **compute), capacity)
    assert (share.cpus, share.threads) == expected


def _share(**fields: Any) -> Share:
    whole: dict[str, Any] = {
        "workers": 1, "cpus": 1, "threads": 1, "gpus": 0, "memory_gb": 0, "accelerator": None, **fields
    }  # fmt: skip
    return Share(**whole)


def test_steps_start_together_only_when_all_of_them_fit() -> None:
    assert _share().fits_beside([_share()], TWO)
    assert not _share().fits_beside([_share(workers=2)], TWO)
    assert not _share(memory_gb=5).fits_beside([_share(memory_gb=5)], TWO)
    assert not _share(gpus=1).fits_beside([_share()], TWO)
    assert _share(cpus=64).fits_beside([], TWO)  # capacity was checked before: alone it may start
    assert _share(workers=3, cpus=0.3333).fits_beside([_share(workers=3, cpus=0.3333)], TWO)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400)])
def test_timeouts_are_read(step: Step, text: str, seconds: float) -> None:
    assert timeout_s(_with(step, timeout=text)) == seconds
