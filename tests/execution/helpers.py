"""Specs, plans and applies with toy jobs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner.execution.carry import carry_out
from runner.execution.failures import Stop
from runner.execution.inline import Inline
from runner.execution.order import Executor, JobFunction
from runner.execution.results import StepResult
from runner.plan.build import build
from runner.plan.step import Plan
from runner.schema.load import load
from runner.store.local import Store, open_store
from runner.ui.progress import Progress, Silence

MODEL = Path(__file__).parents[2] / "specs" / "quickstart" / "model"


def spec(name: str = "toy", *, compute: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A spec for toy jobs: a real model and one clip that nobody listens to."""
    return {
        "kind": "asr-transcribe",
        "name": name,
        "model": {"id": str(MODEL)},
        "data": {"audio": ["*.wav"]},
        "compute": {"cpus": 1, **(compute or {})},
        **fields,
    }


def folder_with(tmp_path: Path, *specs: dict[str, Any]) -> Path:
    """A folder with ``specs`` in one file and the clip beside it."""
    (tmp_path / "clip.wav").write_bytes(b"RIFF")
    (tmp_path / "spec.yaml").write_text("\n---\n".join(json.dumps(s) for s in specs))
    return tmp_path / "spec.yaml"


def planned(tmp_path: Path, *specs: dict[str, Any]) -> tuple[Plan, Store]:
    """The plan of ``specs`` against the store of this test."""
    store = open_store(str(tmp_path / "store"))
    return build(load([str(folder_with(tmp_path, *specs))]), store), store


def no_last_resort(reason: Stop) -> None:
    """For attempts that must end without one."""
    raise AssertionError(f"the last resort was needed: {reason}")


def inline(_hard: Callable[[Stop], None]) -> Executor:
    """The executor of this process."""
    return Inline(hard=no_last_resort)


def applied(
    plan: Plan,
    store: Store,
    job: JobFunction,
    *,
    make: Callable[[Callable[[Stop], None]], Executor] = inline,
    progress: Progress | None = None,
) -> tuple[StepResult, ...]:
    """Carry ``plan`` out with ``job``."""
    return carry_out(plan, store, make_executor=make, here=True, progress=progress or Silence(), job=job)


def apply_one(tmp_path: Path, job: JobFunction, **fields: Any) -> tuple[StepResult, Store]:
    """Carry one spec out with ``job``."""
    plan, store = planned(tmp_path, spec(**fields))
    (result,) = applied(plan, store, job)
    return result, store
