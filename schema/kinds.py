"""The kinds of job, and the class of each."""

from __future__ import annotations

from functools import cache
from typing import get_args

from runner.schema import discover
from runner.schema.job import Job

PACKAGE = "runner.schema.jobs"


@cache
def kinds() -> tuple[str, ...]:
    """Names of all kinds, sorted."""
    return tuple(discover.names(PACKAGE))


@cache
def job_class(kind: str) -> type[Job]:
    """The class that describes specs of ``kind``, which must be one of ``kinds()``."""
    found: object = getattr(discover.load(PACKAGE, kind), discover.job_class_name(kind))
    assert isinstance(found, type) and issubclass(found, Job)
    return found


def kinds_for(task: str) -> tuple[str, ...]:
    """Kinds of job that take a model of ``task``."""
    return tuple(kind for kind in kinds() if task in job_class(kind).tasks)


def kind_of(job: type[Job]) -> str:
    """Name of the kind that ``job`` describes."""
    (name,) = get_args(job.model_fields["kind"].annotation)
    return str(name)
