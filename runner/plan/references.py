"""References to artifacts: what the set makes, what the store has, and a suggestion where neither does."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from runner.plan.step import Input, Step
from runner.schema.errors import PlanError, StoreError
from runner.schema.kinds import job_class
from runner.schema.reference import Reference
from runner.store.local import Store
from runner.store.manifest import Manifest
from runner.store.paths import FILES

MODEL = "model"  # where kinds that make a model put it
VARIANTS = "variants"  # where asr-quantize puts its forms of one: `#int8-dynamic` is short for `#variants/int8-dynamic`


def in_plan(reference: Reference, *, field: str, step: Step, store: Store, model: bool = False) -> Input:
    """Pin a reference to a step of the same plan; ``model``: it stands for one. Raises PlanError."""
    if step.action == "reuse" and step.reuse is not None and "@" in step.reuse:
        name, _, version = step.reuse.partition("@")
        manifest = store.get(name, version)
        assert manifest is not None, f"{step.reuse} was found a moment ago"
        return _found(reference, field, manifest, store)
    inner = reference.path or (MODEL if model else None)
    if inner and (reason := job_class(step.kind).model_validate(step.spec).lacks(inner)):
        raise PlanError(f"{step.name!r} will have no {inner!r}: {reason}")
    return Input(field=field, ref=str(reference), digest=_digest(step.fingerprint, reference))


def in_store(reference: Reference, *, field: str, store: Store, known: Mapping[str, object]) -> Input:
    """Pin a reference to an artifact that the store has. Raises PlanError."""
    try:
        manifest = store.get(reference.name, reference.version)
    except StoreError as error:
        raise PlanError(str(error)) from None
    if manifest is None:
        raise PlanError(_unknown(reference, store, known))
    return _found(reference, field, manifest, store)


def _found(reference: Reference, field: str, manifest: Manifest, store: Store) -> Input:
    path, sizes = _inside(reference, manifest, store)
    version = manifest.version if manifest.name == reference.name else None  # another's is linked first, and numbered
    return Input(
        field=field,
        ref=str(replace(reference, version=version)),
        digest=_digest(manifest.fingerprint, reference),
        path=str(path),
        files=len(sizes),
        size=sum(sizes),
    )


def _digest(fingerprint: str, reference: Reference) -> str:
    return f"fingerprint:{fingerprint}" + (f"#{reference.path}" if reference.path else "")


def _inside(reference: Reference, manifest: Manifest, store: Store) -> tuple[Path, list[int]]:
    """Path of what is referred to, and the sizes of the files there in bytes."""
    sizes = {file.path.removeprefix(f"{FILES}/"): file.size for file in manifest.files}
    inner = reference.path or (MODEL if _under(MODEL, sizes) else "")
    found = _under(inner, sizes)
    if not found and (found := _under(f"{VARIANTS}/{inner}", sizes)):
        inner = f"{VARIANTS}/{inner}"
    if not found:
        variants = dict.fromkeys(path.split("/")[1] for path in sizes if path.startswith(f"{VARIANTS}/"))
        near = sorted(variants) or difflib.get_close_matches(inner, sizes, n=3, cutoff=0.4) or sorted(sizes)[:3]
        raise PlanError(f"{manifest.name}@{manifest.version} has no {inner!r}; it has {', '.join(near) or 'no files'}")
    return store.folder(manifest) / FILES / inner, found


def _under(inner: str, sizes: Mapping[str, int]) -> list[int]:
    """Sizes of the file or of the files in the folder ``inner``; "" is all of them."""
    return [size for path, size in sizes.items() if not inner or path == inner or path.startswith(f"{inner}/")]


def _unknown(reference: Reference, store: Store, known: Mapping[str, object]) -> str:
    versions = store.versions(reference.name)
    if versions:
        return f"{reference.name!r} has no version {reference.version}; it has {', '.join(versions[-5:])}"
    if reference.version and reference.name in known:
        return f"{reference.name!r} has no version yet; leave out '@{reference.version}' to use what this plan makes"
    names = sorted({*store.names(), *known})
    near = difflib.get_close_matches(reference.name, names, n=1, cutoff=0.75)  # names of one family are much alike
    meant = f"did you mean {near[0]!r}?" if near else "give the spec that makes it as well"
    return f"no artifact is called {reference.name!r}, neither in these specs nor in the store; {meant}"
