"""From the inputs that a plan pinned to files on this machine, and whether they still are what was pinned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.context import Given
from runner.plan import files, references, tables
from runner.plan.fields import INPUTS, Field, walk
from runner.plan.inputs import OPTIONS, Pinner, digest_of
from runner.plan.reasons import Listing
from runner.plan.step import Input, Step
from runner.registry import dataset, hub
from runner.registry.resolve import resolve
from runner.schema.errors import ConflictError, PlanError
from runner.schema.job import Job
from runner.schema.marks import Mark
from runner.schema.reference import is_reference, parse
from runner.store.local import Store

HUB = "hf:"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of one step."""

    step: Step
    spec: Job
    store: Store
    _first: dict[str, str] = dataclasses.field(default_factory=dict)  # what ``check`` saw first, by input

    def given(self, say: Callable[[str], None]) -> dict[str, Given]:
        """Every input on this machine's disk, by spec field; downloads what lies on a hub and tells ``say``."""
        return {pinned.field: self._given(pinned, field, say) for pinned, field in self._pairs()}

    def rows(self) -> tuple[dict[str, Any], ...]:
        """The inputs as the manifest lists them; a reference names the version that it led to."""
        now = map(self._now, self.step.inputs)
        return tuple(
            {"field": i.field, "ref": i.ref, "digest": i.digest, "files": i.files, "size": i.size} for i in now
        )

    def check(self, pinner: Pinner) -> Mapping[str, Listing]:
        """The files behind each input of files, as (path, digest).

        Artifacts and hub commits cannot change; what lies in folders can, before a run and during it, and so can what
        a table out of an artifact names. Raises ConflictError when it is not what the plan saw, or, where the plan
        could not see it yet, what the first check saw.
        """
        listings: dict[str, Listing] = {}
        for pinned, field in self._pairs():
            if pinned.ref.startswith(HUB) or (is_reference(pinned.ref) and field.mark is not Mark.MANIFEST):
                continue
            if is_reference(pinned.ref):
                listing = tables.recordings(field, self._now(pinned), pinner, folder=self._folder)
                expected = pinned.recordings or self._first.setdefault(pinned.field, digest_of(listing))
            else:
                listing, expected = pinner.listing(field, folder=self._folder), pinned.digest
            if digest_of(listing) != expected:
                raise ConflictError(
                    f"{self.step.name}: {field.path}: the files behind {pinned.ref!r} are not what the plan saw; "
                    f"nothing was published, apply again"
                )
            listings[pinned.field] = tables.shown(listing)
        return listings

    @property
    def _folder(self) -> Path:
        return Path(self.step.folder)

    def _pairs(self) -> list[tuple[Input, Field]]:
        fields = {field.input: field for field in walk(self.spec) if field.mark in INPUTS}
        return [(pinned, fields[pinned.field]) for pinned in self.step.inputs]

    def _given(self, pinned: Input, field: Field, say: Callable[[str], None]) -> Given:
        now = self._now(pinned)
        path = self._folder if now.path is None else Path(now.path)
        listed: tuple[str, ...] = ()
        if field.mark is Mark.FILES:
            listed = files.expand(field.value, folder=self._folder)
        elif field.mark is Mark.CORPUS:
            path, listed = _corpus(now, field, path, say)
        elif now.ref.startswith(HUB):
            path = _fetch(now, field, self._folder, say)
        return Given(field=now.field, ref=now.ref, digest=now.digest, path=path, files=listed)

    def _now(self, pinned: Input) -> Input:
        """Where a reference leads by now. One to a step of the same plan had no version before that was made."""
        if not is_reference(pinned.ref):
            return pinned
        reference = parse(pinned.ref)
        if reference.version is None:
            fingerprint = pinned.digest.removeprefix("fingerprint:").partition("#")[0]
            found = self.store.by_fingerprint(fingerprint, reference.name)
            if found is None:
                raise PlanError(f"{self.step.name}: {pinned.field}: {pinned.ref!r} was not made; apply again")
            name, _, version = found.partition("@")
            reference = replace(reference, name=name, version=version)
        found_now = references.in_store(reference, field=pinned.field, store=self.store, known={})
        return replace(found_now, digest=pinned.digest)


def _corpus(pinned: Input, field: Field, path: Path, say: Callable[[str], None]) -> tuple[Path, tuple[str, ...]]:
    """Where a corpus is, and its files where it is more than one: absolute for those of a hub."""
    if pinned.ref.startswith(HUB):
        found = dataset.resolve(pinned.ref, split=field.beside("split", "train"))
        home = hub.snapshot(found.repo, commit=found.commit, files=found.files, kind="dataset", say=say)
        return home, tuple(str(home / name) for name, _ in found.files)
    if pinned.path is None:
        return path, files.expand([field.value], folder=path)
    return path, ()


def _fetch(pinned: Input, field: Field, folder: Path, say: Callable[[str], None]) -> Path:
    options = {name: field.beside(name, default) for name, default in OPTIONS.items()}
    options["revision"] = pinned.digest.removeprefix("commit:")
    return hub.fetch(resolve(pinned.ref, folder=folder, **options), say=say)
