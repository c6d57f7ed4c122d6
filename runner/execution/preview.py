"""What the job of each spec shows of its data before it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runner.execution.inputs import Inputs
from runner.plan.build import build
from runner.plan.fields import walk
from runner.schema import discover
from runner.schema.kinds import job_class
from runner.schema.load import Loaded
from runner.schema.marks import Mark
from runner.store.local import Store


def previews(loaded: Sequence[Loaded], store: Store, *, samples: int, say: Callable[[str], None]) -> list[Any]:
    """What each spec learns from: the first ``samples`` of each of its corpora. ``say`` hears of what is fetched.

    Raises PlanError for specs that cannot be planned, JobError for data that cannot be read.
    """
    found = []
    for step in build(loaded, store).steps:
        spec = job_class(step.kind).model_validate(step.spec)
        if any(field.mark is Mark.CORPUS for field in walk(spec)):
            given = Inputs(step=step, spec=spec, store=store).given(say)
            job = discover.load("runner.jobs", step.kind)
            found.append(job.preview(spec, given, folder=Path(step.folder), samples=samples))
    return found
