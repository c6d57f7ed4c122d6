"""What to do about a step: make it, use what the store has, or say what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.plan import gates
from runner.plan.listing import stored
from runner.plan.reasons import Listings, differences
from runner.plan.step import Action, Input, Step
from runner.store import lookup
from runner.store.local import Store
from runner.store.manifest import Manifest

WAY_OUT = "raise the limit or change the spec"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a step asks for."""

    name: str
    fingerprint: str
    result: Mapping[str, Any]  # RESULT fields by path
    gates: Mapping[str, Any]
    inputs: Sequence[Input]
    code_version: int
    listings: Listings  # files behind an input now, by field


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The part of a step that depends on what the store has."""

    action: Action
    reasons: tuple[str, ...]
    reuse: str | None = None
    writes: bool = True


def decide(wanted: Wanted, *, store: Store, upstream: Sequence[str], before: Mapping[str, Step]) -> Decision:
    """Decide on one step; ``before`` holds the steps of this plan that come earlier, by name.

    ``upstream`` names those that it needs.
    """
    blocked = [name for name in upstream if before[name].action == "blocked"]
    if blocked:
        return _blocked(*(f"upstream {name!r} is blocked" for name in blocked))
    latest = store.latest(wanted.name)
    damage = (
        lookup.damage(store.folder(latest), latest) if latest and latest.fingerprint == wanted.fingerprint else None
    )
    if latest and latest.fingerprint == wanted.fingerprint and not damage:
        found: str | None = f"{latest.name}@{latest.version}"  # the usual case, at half the price
    else:
        found = store.by_fingerprint(wanted.fingerprint, wanted.name)
    if found is not None:
        return _reuse(wanted, found, latest, store)
    kept = store.find_quarantined(wanted.name, wanted.fingerprint)
    if kept is not None:
        return _from_quarantine(wanted, kept.manifest)
    twins = (s for s in before.values() if s.fingerprint == wanted.fingerprint and s.action == "create")
    for twin in twins:
        return Decision(action="reuse", reasons=(f"the same work as {twin.name!r} of this plan",), reuse=twin.name)
    made = {name for name, step in before.items() if step.action == "create"}
    return Decision(action="create", reasons=_why(wanted, latest, damage, made, store))


def _blocked(*reasons: str) -> Decision:
    return Decision(action="blocked", reasons=reasons, writes=False)


def _missed(wanted: Wanted, metrics: Mapping[str, Any], where: str) -> list[str]:
    results = gates.check(wanted.gates, metrics)
    return [f"{result} ({where}); {WAY_OUT}" for result in results if not result.passed]


def _reuse(wanted: Wanted, found: str, latest: Manifest | None, store: Store) -> Decision:
    name, _, version = found.partition("@")
    own = name == wanted.name
    current = own and latest is not None and latest.version == version
    manifest = latest if current else store.get(name, version)
    assert manifest is not None, f"the store found {found} and has it not"
    missed = _missed(wanted, manifest.metrics, found)
    if missed:
        return _blocked(*missed)
    reasons = [f"{version if own else found} has this fingerprint"]
    if not own:
        reasons.append(f"will be linked as {wanted.name!r}")
    elif latest is not None and not current:
        reasons.append(f"latest moves from {latest.version} to {version}")
    return Decision(action="reuse", reasons=tuple(reasons), reuse=found, writes=not current)


def _from_quarantine(wanted: Wanted, kept: Manifest) -> Decision:
    run = str(kept.run["id"])
    missed = _missed(wanted, kept.metrics, f"quarantined run {run}")
    if missed:
        return _blocked(*missed)
    return Decision(action="reuse", reasons=(f"quarantined run {run} meets the gates now",), reuse=f"quarantine:{run}")


def _why(wanted: Wanted, latest: Manifest | None, damage: str | None, made: set[str], store: Store) -> tuple[str, ...]:
    if latest is None:
        return ("no artifact yet",)
    if damage:
        return (f"{latest.version} is damaged: {damage}",)
    folder = store.folder(latest)
    return differences(
        latest,
        result=wanted.result,
        inputs=wanted.inputs,
        code_version=wanted.code_version,
        made=made,
        before=lambda field: stored(folder).get(field, ()),
        now=wanted.listings,
    )
