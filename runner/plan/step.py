"""The plan as a value: ordered steps and what each will do. Serialisable, comparable, without behaviour."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Action = Literal["create", "reuse", "blocked"]


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input of a step, pinned."""

    field: str  # spec field path: "model", "data.audio", "data.manifest"
    ref: str  # pinned: "./model", "hf:owner/name@<commit>", "artifact:NAME@vN#path", "artifact:NAME#path" (to be made)
    digest: str  # "sha256:..." of content, "commit:..." on the hub, "fingerprint:...#path" of the step that makes it;
    # "fingerprint:...+sha256:...#path" for a table whose recordings are not those that the step saw
    path: str | None = None  # absolute path on this machine where it is known
    files: int = 0  # number of files behind it
    size: int = 0  # bytes
    missing: int = 0  # recordings that a manifest names and nobody has
    recordings: str | None = None  # "sha256:..." of what a table out of an artifact names, once that is made


@dataclass(frozen=True, kw_only=True)
class Step:
    """What will happen to one spec."""

    name: str
    kind: str
    file: str  # spec file as the user wrote it, "-" for stdin
    line: int
    folder: str  # absolute folder that relative paths refer to
    spec: dict[str, Any]  # the resolved spec with every default, JSON types only
    inputs: tuple[Input, ...]
    fingerprint: str  # 64 hex digits
    action: Action
    reasons: tuple[str, ...]  # "decode.beam_size 1 -> 8", "no artifact yet", "v3 has this fingerprint"
    reuse: str | None = None  # what has this fingerprint: "NAME@vN", or "NAME" of an earlier step of this plan
    writes: bool = True  # whether apply changes anything for this step (a reuse may still move `latest` or add a link)
    after: tuple[str, ...] = ()  # names of steps of this plan that come first
    family: str | None = None
    estimate: dict[str, Any] = field(default_factory=dict)  # parameters, weights_gb, memory_gb where known
    code_version: int = 1  # of the kind; in the fingerprint


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Steps in an order that can be carried out."""

    steps: tuple[Step, ...]
    store: str
    version: int = 1  # of this format

    def to_json(self) -> dict[str, Any]:
        """JSON types only; ``from_json`` reads it back."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Plan:
        """Rebuild a plan from ``to_json``'s output."""
        steps = tuple(_step(s) for s in data["steps"])
        return Plan(steps=steps, store=data["store"], version=data["version"])


def _step(data: dict[str, Any]) -> Step:
    inputs = tuple(Input(**i) for i in data["inputs"])
    return Step(**{**data, "inputs": inputs, "reasons": tuple(data["reasons"]), "after": tuple(data["after"])})
