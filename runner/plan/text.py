"""A plan in calm words, one line a step and its reasons below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.plan.step import Input, Plan, Step
from runner.registry.demand import RESERVE
from runner.schema.words import size

SIGNS = {"create": "+", "reuse": "=", "blocked": "!"}


def lines(plan: Plan) -> list[str]:
    """The plan for a terminal. Steps that are there and stay as they are come as one line each."""
    return [line for step in plan.steps for line in _step(step)] + ["", summary(plan)]


def summary(plan: Plan) -> str:
    """What will happen, in one line."""
    counts = {action: [s for s in plan.steps if s.action == action] for action in SIGNS}
    if not changes(plan) and not counts["blocked"]:
        return f"Nothing to do: {_count(len(plan.steps), 'artifact')} up to date in {plan.store}."
    linked = sum(step.writes for step in counts["reuse"])
    parts = [f"{len(counts['create'])} to create", f"{len(counts['reuse'])} to reuse"]
    parts[1] += f" ({linked} to link)" if linked else ""
    parts += [f"{len(counts['blocked'])} blocked"] if counts["blocked"] else []
    return f"Plan: {', '.join(parts)}, in {plan.store}."


def changes(plan: Plan) -> bool:
    """Whether carrying the plan out would change anything."""
    return any(step.writes and step.action != "blocked" for step in plan.steps)


def _step(step: Step) -> Iterator[str]:
    head = f"{SIGNS[step.action]} {step.action:<7} {step.name}"
    if step.action == "reuse" and not step.writes:
        yield f"{head}: {'; '.join(step.reasons)}"
        return
    yield f"{head} ({step.kind}, {step.file}:{step.line})"
    yield from (f"    {reason}" for reason in step.reasons)
    if step.action == "create":
        yield from (f"    {line}" for line in _details(step))


def _details(step: Step) -> Iterator[str]:
    for entry in step.inputs:
        yield f"{entry.field}: {_input(entry)}"
    known = step.estimate
    if "parameters" in known:
        about = "" if "strategy" in known else f", about {known['memory_gb']:g} GB memory a worker (estimate)"
        yield f"family: {step.family}, {known['parameters'] / 1e6:,.1f} M parameters{about}"
    yield from _training(known)
    if step.after:
        yield f"after: {', '.join(step.after)}"


def _training(known: Mapping[str, Any]) -> Iterator[str]:
    """The forecast of a training run, and how its processes share it."""
    if found := known.get("forecast"):
        held = {name: size(found[name]) for name in ("weights", "gradients", "optimizer")}
        trained = f"{found['trainable_parameters'] / 1e6:,.3g} M of {found['parameters'] / 1e6:,.3g} M parameters"
        of = f" of the {size(found['memory'])} that a process has" if found["memory"] is not None else " a process"
        much = ", more than there is" if found["fits"] is False else ""
        yield (
            f"trains {trained}: about {size(found['process'])}{of} beside {size(RESERVE)} of libraries{much} "
            f"(estimate); of the model {held['weights']} weights, {held['gradients']} gradients, {held['optimizer']} "
            "optimizer"
        )
    if chosen := known.get("strategy"):
        yield f"strategy: {chosen['name']} ({chosen['why']})"


def _input(entry: Input) -> str:
    scheme, _, value = entry.digest.partition(":")
    short = f"{scheme} {value[:12]}" if scheme != "commit" else ""
    count = f"{_count(entry.files, 'file')}, {size(entry.size)}" if entry.files else ""
    missing = f"{_count(entry.missing, 'recording')} not found" if entry.missing else ""
    return ", ".join(filter(None, (entry.ref, count, missing, short)))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan for programs: all of it, and what it comes to."""
    counts = {action: sum(step.action == action for step in plan.steps) for action in SIGNS}
    return {**plan.to_json(), "changes": changes(plan), "counts": counts}
