"""Saved plans: what was seen is what is applied, or nothing is.

A saved plan holds the resolved specs and every pin. Loading it plans the same specs again and compares: a pin that
moved is named, and the plan is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from runner import __version__
from runner.plan import fingerprint
from runner.plan.build import build
from runner.plan.reasons import show
from runner.plan.step import Input, Plan, Step
from runner.schema.errors import ConflictError, PlanError, UsageError
from runner.schema.kinds import job_class, kinds
from runner.schema.load import Loaded
from runner.schema.nodes import Fields
from runner.store.local import Store

FORMAT = "runner-plan"
BEGINNING = re.compile(rb'\s*\{\s*"format"\s*:\s*"runner-plan"')
HEAD_BYTES = 1024
MAX_BYTES = 1 << 28


def save(plan: Plan, path: Path) -> None:
    """Write ``plan`` to ``path``, which appears whole or not at all.

    Raises UsageError when another file lies there, PlanError when it can't be written.
    """
    if path.exists() and not is_saved(str(path)):
        raise UsageError(f"{str(path)!r} is there and no saved plan; it was left as it is, choose another file for -o")
    content = plan.to_json()
    data = {"format": FORMAT, **_versions(), "sha256": _checksum(content), "plan": content}
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise PlanError(f"can't write the plan to {str(path)!r}: {error.strerror}; choose another file") from None


def load_saved(path: Path, store: Store) -> Plan:
    """The plan in ``path``, every pin of which still holds.

    Raises PlanError when the file is no saved plan, ConflictError that lists what moved since it was made.
    """
    data = _read(path)
    old = _plan(path, data)
    moved = [f"{name} {data.get(name)} -> {now}" for name, now in _versions().items() if data.get(name) != now]
    if old.store != str(store.root):
        moved.append(f"store {old.store} -> {store.root}")
    if moved:
        raise _stale(path, moved)
    loaded = [_loaded(path, step) for step in old.steps]
    try:
        new = build(loaded, store)
    except PlanError as error:
        raise _stale(path, str(error).splitlines()) from None
    moved = list(_moved(old, new))
    if moved:
        raise _stale(path, moved)
    return new


def is_saved(source: str) -> bool:
    """Whether a source on the command line is a saved plan: a spec may be JSON too."""
    path = Path(source)
    try:
        if not source.endswith(".json") or not path.is_file():
            return False  # a pipe can be read only once
        with path.open("rb") as file:
            return BEGINNING.match(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False  # whoever reads it as a spec says what is wrong with it


def _versions() -> dict[str, Any]:
    return {"runner": __version__, "hash_version": fingerprint.HASH_VERSION}


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _stale(path: Path, moved: list[str]) -> ConflictError:
    what = "; ".join(moved)
    return ConflictError(f"the plan in {str(path)!r} is stale: {what}; make it anew with `runner plan ... -o {path}`")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PlanError(f"{str(path)!r} is too large for a saved plan")
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise PlanError(f"can't read the plan {str(path)!r}: {error.strerror}") from None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise PlanError(f"{str(path)!r} is no saved plan; `runner plan SPEC -o NEW.json` writes one")
    return data


def _plan(path: Path, data: Mapping[str, Any]) -> Plan:
    if data.get("sha256") != _checksum(data.get("plan")):  # a slip of the hand, not an attack: anyone can hash
        raise PlanError(f"the plan in {str(path)!r} was changed after it was saved; make it anew")
    try:
        return TypeAdapter(Plan).validate_json(json.dumps(data.get("plan")), strict=True)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise PlanError(f"the plan in {str(path)!r} is damaged (at {where or 'plan'!r}); make it anew") from None


def _loaded(path: Path, step: Step) -> Loaded:
    if step.kind not in kinds():
        raise PlanError(
            f"the plan in {str(path)!r} has a step of unknown kind {step.kind!r}; known are {', '.join(kinds())}"
        )
    try:
        spec = job_class(step.kind).model_validate_json(json.dumps(step.spec))
    except ValidationError:
        spec = None
    if spec is None or spec.name != step.name:
        raise PlanError(f"the plan in {str(path)!r} has a spec that is not valid: {step.name!r}; make it anew")
    root = Fields(line=step.line, column=1)
    return Loaded(spec=spec, file=step.file, folder=Path(step.folder), root=root)


def _moved(old: Plan, new: Plan) -> Iterator[str]:
    after = {step.name: step for step in new.steps}
    for was in old.steps:
        now = after[was.name]
        pins = {entry.field: entry for entry in now.inputs}
        inputs = [(entry, pins[entry.field]) for entry in was.inputs if entry.field in pins]
        changed = [
            f"{was.name}: {a.field} {_pin(a)} -> {_pin(b)}" for a, b in inputs if (a.ref, a.digest) != (b.ref, b.digest)
        ]
        yield from changed
        if was.code_version != now.code_version:
            yield f"{was.name}: code_version {was.code_version} -> {now.code_version}"
        decided = [(s.action, s.reuse, s.writes, s.reasons) for s in (was, now)]
        if decided[0] != decided[1] and not changed:
            yield f"{was.name}: {_decision(was)} -> {_decision(now)}"


def _pin(entry: Input) -> str:
    return f"{show(entry.ref)} {entry.digest[:24]}"


def _decision(step: Step) -> str:
    return f"{step.action} ({'; '.join(step.reasons)})"
