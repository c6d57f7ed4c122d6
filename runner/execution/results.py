"""What became of each step of a plan; light enough for an apply that has nothing to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from runner.plan.step import Plan, Step
from runner.schema.errors import FailureClass, StoreError
from runner.store.local import Store
from runner.store.manifest import Manifest

Action = Literal["created", "reused", "linked", "released", "quarantined", "failed", "cancelled", "blocked", "skipped"]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What became of one step."""

    name: str
    kind: str
    action: Action
    exit_code: int = 0
    artifact: str | None = None  # "NAME@vN"
    folder: str | None = None  # of the artifact, also of one in quarantine
    failure: FailureClass | None = None
    message: str = ""
    run: str | None = None
    attempts: int = 0
    seconds: float | None = None  # of this apply
    metrics: Mapping[str, Any] = field(default_factory=dict)
    gates: Sequence[Mapping[str, Any]] = ()

    @property
    def usable(self) -> bool:
        """Whether steps that need this one can go on."""
        return self.action in {"created", "reused", "linked", "released"}


def is_unchanged(step: Step) -> bool:
    """Whether the artifact of ``step`` is there and is the latest."""
    return step.action == "reuse" and not step.writes


def unchanged(step: Step, store: Store) -> StepResult:
    """The result of a step that ``is_unchanged``."""
    manifest = store.latest(step.name)
    if manifest is None:
        raise StoreError(f"{step.reuse!r} is not in the store any more; apply again")
    return of_manifest(step, "reused", manifest, store.folder(manifest))


def blocked(step: Step) -> StepResult:
    """The result of a step that the plan saw no way for: an artifact with its fingerprint misses its gates."""
    why = "; ".join(step.reasons)
    return StepResult(name=step.name, kind=step.kind, action="blocked", exit_code=3, failure="GateFailed", message=why)


def of_manifest(
    step: Step, action: Action, manifest: Manifest, folder: Path, *, missed: str = "", message: str = ""
) -> StepResult:
    """The result of a step that led to an artifact; ``missed`` are gates that it does not meet."""
    return StepResult(
        name=step.name,
        kind=step.kind,
        action=action,
        exit_code=3 if missed else 0,
        artifact=None if missed else f"{manifest.name}@{manifest.version}",
        folder=str(folder),
        failure="GateFailed" if missed else None,
        message=missed or message,
        run=str(manifest.run["id"]),
        attempts=int(manifest.run["attempts"]),
        metrics=manifest.metrics,
        gates=manifest.gates,
    )


def nothing_to_do(plan: Plan, store: Store) -> tuple[StepResult, ...] | None:
    """The results of a plan that changes nothing; None when there is something to carry out."""
    if not all(is_unchanged(step) or step.action == "blocked" for step in plan.steps):
        return None
    return tuple(unchanged(step, store) if is_unchanged(step) else blocked(step) for step in plan.steps)


def exit_code(results: Sequence[StepResult]) -> int:
    """Of the whole apply: the highest of its steps."""
    return max((result.exit_code for result in results), default=0)
