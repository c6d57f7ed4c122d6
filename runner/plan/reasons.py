"""Why a step must run: what differs from the artifact that is there, field by field."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from runner.plan.inputs import MISSING
from runner.plan.step import Input
from runner.schema.nodes import split_path
from runner.store.manifest import Manifest

Listing = Sequence[Sequence[str]]  # (path, digest) of each file behind an input
Listings = Callable[[str], Listing]  # by field; empty where nothing is known
NOT_SET = object()
MAX_SHOWN = 60  # characters of a value


def differences(
    old: Manifest,
    *,
    result: Mapping[str, Any],
    inputs: Sequence[Input],
    code_version: int,
    made: Collection[str],
    before: Listings,
    now: Listings,
) -> tuple[str, ...]:
    """What decides the result and is not as it was for ``old``.

    ``result`` maps the RESULT fields to their values; ``made`` names the steps of this plan that will run. The
    listings ``before`` and ``now`` are asked only for an input whose content changed.
    """
    found = [
        f"{path} {show(at(old.spec, path))} -> {show(new)}" for path, new in result.items() if at(old.spec, path) != new
    ]
    found += _inputs(old, inputs, made, before, now)
    old_code = old.code.get("code_version", code_version)
    if old_code != code_version:
        found.append(f"code_version {old_code} -> {code_version}")
    return tuple(found) or ("made by another version of runner, whose fingerprints differ",)


def _inputs(
    old: Manifest, inputs: Sequence[Input], made: Collection[str], before: Listings, now: Listings
) -> Iterator[str]:
    known = {entry["field"]: entry for entry in old.inputs}
    for new in inputs:
        was = known.pop(new.field, None)
        upstream = new.ref.removeprefix("artifact:").partition("#")[0]
        if was is not None and was["digest"] == new.digest:
            continue
        if new.ref.startswith("artifact:") and upstream in made:
            yield f"{new.field}: upstream {upstream!r} will be made"
        elif was is None:
            yield f"{new.field}: now {new.ref}"
        else:
            yield f"{new.field}: {_changed(new, was) or files_changed(before(new.field), now(new.field))}"
    yield from (f"{name}: no longer an input" for name in known)


def _changed(new: Input, old: Mapping[str, Any]) -> str | None:
    if new.digest.startswith("commit:") and old["digest"].startswith("commit:"):
        was, now = (digest.removeprefix("commit:").partition("#") for digest in (old["digest"], new.digest))
        if was[0] == now[0]:  # another pattern of the same dataset
            return f"{was[2] or 'files of the split'} -> {now[2] or 'files of the split'}"
        return f"commit {was[0][:8]} -> {now[0][:8]}"
    return f"{show(old['ref'])} -> {show(new.ref)}" if new.ref != old["ref"] else None


def files_changed(before: Listing, now: Listing) -> str:
    """`2 files changed, 1 added, 3 removed`; `content changed` where the old files are not known."""
    if not before:
        return "content changed"
    old, new = ({row[0]: row[1] for row in listing if row[1] != MISSING} for listing in (before, now))
    changed = sum(path in old and old[path] != digest for path, digest in new.items())
    counts = [(changed, "changed"), (len(new.keys() - old.keys()), "added"), (len(old.keys() - new.keys()), "removed")]
    parts = [f"{count} {word}" for count, word in counts if count]
    if not parts:
        return "order of files changed"
    number, _, rest = parts[0].partition(" ")
    return ", ".join([f"{number} {'file' if number == '1' else 'files'} {rest}", *parts[1:]])


_parts = cache(split_path)  # the same few paths for each of 1,000 specs


def at(spec: Mapping[str, Any], path: str) -> Any:
    """The value at a path (`models[0].name`) of a stored spec, or NOT_SET."""
    value: Any = spec
    for part in _parts(path):
        try:
            value = value[part]
        except (LookupError, TypeError):
            return NOT_SET
    return value


def show(value: Any) -> str:
    """A value in a few words."""
    if value is NOT_SET:
        return "(not set)"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
