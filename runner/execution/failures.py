"""Why a run failed: one class for each exception, and what each class calls for, as data."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from runner.schema.errors import (
    ConflictError,
    FailureClass,
    InfeasibleError,
    JobError,
    PlanError,
    StoreError,
    UserError,
)


class Stop(BaseException):
    """Ends an attempt from outside. Not an Exception: a job that goes on after a bad file must not go on after this."""


class Cancelled(Stop):
    """Somebody cancelled the run."""


class OutOfTime(Stop):
    """The attempt used up its `compute.timeout`."""


class SaidFailedError(JobError):
    """The job ended as it should and says that it failed: its checkpoints are good, and what made it fail may be a
    field outside the fingerprint."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """What a class of failure calls for."""

    tries: int  # further attempts at once; `compute.retries` is the limit above it
    wait_s: float  # before the first of them; doubles each time, at most a minute
    resumes: bool  # whether the next apply goes on from the checkpoints rather than from nothing


MAX_WAIT_S = 60.0
RETRIES: dict[FailureClass, Retry] = {
    "Infeasible": Retry(tries=0, wait_s=0, resumes=True),
    "OutOfMemoryHost": Retry(tries=1, wait_s=5, resumes=True),
    "OutOfMemoryGpu": Retry(tries=1, wait_s=5, resumes=True),
    "DataInvalid": Retry(tries=0, wait_s=0, resumes=False),
    "ModelInvalid": Retry(tries=0, wait_s=0, resumes=False),
    "NotFound": Retry(tries=0, wait_s=0, resumes=False),
    "Preempted": Retry(tries=100, wait_s=1, resumes=True),
    "NaN": Retry(tries=0, wait_s=0, resumes=False),
    "DiskFull": Retry(tries=0, wait_s=0, resumes=True),
    "Timeout": Retry(
        tries=3, wait_s=5, resumes=True
    ),  # of a hub or a network; see ``may_repeat`` for `compute.timeout`
    "GateFailed": Retry(tries=0, wait_s=0, resumes=True),  # the gate may be moved: it is no part of the fingerprint
    "UserCode": Retry(tries=0, wait_s=0, resumes=False),
    "ControlPlaneLost": Retry(tries=5, wait_s=2, resumes=True),
}

# Exceptions of packages that may not be imported here, by the names of the class and its bases.
BY_NAME: dict[str, FailureClass] = {
    "torch.OutOfMemoryError": "OutOfMemoryGpu",
    "torch.cuda.OutOfMemoryError": "OutOfMemoryGpu",
    "ray.exceptions.OutOfMemoryError": "OutOfMemoryHost",
    "ray.exceptions.NodeDiedError": "Preempted",
    "ray.exceptions.WorkerCrashedError": "Preempted",
    "ray.exceptions.LocalRayletDiedError": "Preempted",
    "ray.exceptions.RayActorError": "Preempted",
    "ray.exceptions.ActorUnschedulableError": "Infeasible",
    "ray.exceptions.TaskUnschedulableError": "Infeasible",
    "ray.exceptions.GetTimeoutError": "Timeout",
    "ray.exceptions.RuntimeEnvSetupError": "ControlPlaneLost",
    "ray.exceptions.RaySystemError": "ControlPlaneLost",
    "ray.exceptions.ObjectLostError": "ControlPlaneLost",
    "ray.exceptions.OutOfDiskError": "DiskFull",
    "huggingface_hub.errors.RepositoryNotFoundError": "NotFound",
    "huggingface_hub.errors.EntryNotFoundError": "NotFound",
    "huggingface_hub.errors.RevisionNotFoundError": "NotFound",
    "huggingface_hub.errors.LocalEntryNotFoundError": "NotFound",
    "huggingface_hub.errors.HfHubHTTPError": "ControlPlaneLost",
    "httpx.TransportError": "ControlPlaneLost",
    "httpx2.TransportError": "ControlPlaneLost",
    "safetensors._safetensors_rust.SafetensorError": "ModelInvalid",
}
BY_ERRNO: dict[int, FailureClass] = {
    errno.ENOSPC: "DiskFull",
    errno.EDQUOT: "DiskFull",
    errno.ENOENT: "NotFound",
    errno.ENOMEM: "OutOfMemoryHost",
}
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
# safetensors and torch.save lose the number; the last two are what torch says of a write that was cut short
NO_SPACE_WORDS = ("no space left on device", "disk quota exceeded", "] . unexpected pos", "pytorchstreamwriter failed")
# A store that takes no writes is Infeasible: what the step needs, a place to publish in, cannot be had here. It is
# neither tried again nor does it cost the checkpoints; DiskFull does the same, but sends people to look for space.
STORE_REFUSES = {errno.EROFS, errno.EACCES, errno.EPERM}
BY_TYPE: tuple[tuple[type[BaseException], FailureClass], ...] = (
    (OutOfTime, "Timeout"),
    (InfeasibleError, "Infeasible"),
    (ConflictError, "Preempted"),
    (PlanError, "NotFound"),
    (MemoryError, "OutOfMemoryHost"),
    (FloatingPointError, "NaN"),
    (ConnectionError, "ControlPlaneLost"),
    (TimeoutError, "Timeout"),
    (UnicodeError, "DataInvalid"),
)
# torch raises a plain RuntimeError when the host's allocator gives up
HOST_MEMORY = ("can't allocate memory", "defaultcpuallocator: not enough memory", "std::bad_alloc")


def classify(error: BaseException) -> FailureClass:
    """The class of ``error``, or of the first of its causes that says more than "user code"."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        failure = _one(cause)
        if failure is not None:
            return failure
        cause = cause.__cause__
    return "UserCode"


def describe(error: BaseException) -> str:
    """One line for people."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    advice = "free some space (`runner artifacts gc --delete` removes what nothing needs) and apply again"
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        where = repr(error.filename) if error.filename else _unnamed()
        return f"can't write {where}: {error.strerror}; {advice}"
    if _tells_no_space(error):
        return f"can't write {_unnamed()}: No space left on device ({type(error).__name__}: {text}); {advice}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _unnamed() -> str:
    # not tempfile.gettempdir(): it looks for a folder that takes a file, and raises where every disk is full
    return f"to the store or to {os.environ.get('TMPDIR', '/tmp')!r} (TMPDIR)"


def may_repeat(error: BaseException) -> bool:
    """Whether another attempt makes sense: not after the whole `compute.timeout`, not against another apply."""
    return not isinstance(error, OutOfTime | ConflictError)


def wait_s(failure: FailureClass, attempt: int) -> float:
    """Seconds to wait after the ``attempt``-th attempt (from 1) failed like this."""
    return min(MAX_WAIT_S, RETRIES[failure].wait_s * 2.0 ** min(attempt - 1, 10))


def _one(error: BaseException) -> FailureClass | None:
    if isinstance(error, JobError):
        return error.failure
    if _tells_no_space(error):
        return "DiskFull"
    for kind in type(error).__mro__:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name in BY_NAME:
            return BY_NAME[name]
    cause = error.__cause__
    if isinstance(error, StoreError) and isinstance(cause, OSError) and cause.errno in STORE_REFUSES:
        return "Infeasible"
    if isinstance(error, OSError) and error.errno in BY_ERRNO:
        return BY_ERRNO[error.errno]
    of_type = next((failure for base, failure in BY_TYPE if isinstance(error, base)), None)
    text = str(error).lower()
    return of_type or ("OutOfMemoryHost" if any(words in text for words in HOST_MEMORY) else None)


def _tells_no_space(error: BaseException) -> bool:
    return not isinstance(error, UserError) and any(words in str(error).lower() for words in NO_SPACE_WORDS)
