"""Every error that a user may see, as one tree.

UserError                    one line for people: what it is, what it got, what is allowed, what to do
├── UsageError          (2)  wrong words on the command line
├── SpecError           (2)  a spec that does not validate; carries every problem with its place
├── PlanError           (2)  a valid spec that cannot be planned: no such file, model or artifact
├── InfeasibleError     (4)  the resources asked for cannot be had here
├── ConflictError       (5)  a stale plan, a lease held by somebody else
├── StoreError          (1)  the store is damaged, full or not writable
└── JobError            (1)  a run failed; ``failure`` is its class

The number is the exit code. Anything else that escapes is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FailureClass = Literal[
    "Infeasible",
    "OutOfMemoryHost",
    "OutOfMemoryGpu",
    "DataInvalid",
    "ModelInvalid",
    "NotFound",
    "Preempted",
    "NaN",
    "DiskFull",
    "Timeout",
    "GateFailed",
    "UserCode",
    "ControlPlaneLost",
]


class UserError(Exception):
    """An error for people: its text is the whole message, no trace is shown."""

    exit_code = 1


class UsageError(UserError):
    """Wrong words on the command line."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """One thing wrong with one place of a spec."""

    file: str
    line: int  # 1-based
    column: int  # 1-based
    path: str  # dotted field path, "" for the document itself
    message: str  # what it is and what is allowed
    code: str = ""  # stable machine name, e.g. "unknown-field"
    hint: str = ""  # what to do, e.g. "did you mean 'beam_size'?"

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: "
        what = f"{self.path}: {self.message}" if self.path else self.message
        return where + what + (f"; {self.hint}" if self.hint else "")


class SpecError(UserError):
    """Specs that do not validate; ``problems`` holds every one of them, sorted by place."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        assert problems, "a SpecError without problems"
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(p) for p in self.problems))


class PlanError(UserError):
    """A valid spec that cannot be planned."""

    exit_code = 2


class InfeasibleError(UserError):
    """Resources that cannot be had here: says what is needed and what there is."""

    exit_code = 4


class ConflictError(UserError):
    """A stale plan, or a lease that somebody else holds."""

    exit_code = 5


class StoreError(UserError):
    """The store is damaged, full or not writable."""


class JobError(UserError):
    """A run failed; ``failure`` names the class, which decides whether it is tried again."""

    def __init__(self, message: str, *, failure: FailureClass) -> None:
        super().__init__(message)
        self.failure: FailureClass = failure
        self.exit_code = 3 if failure == "GateFailed" else 4 if failure == "Infeasible" else 1
