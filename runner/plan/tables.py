"""Recordings named by a table out of an artifact: the artifact's fingerprint says nothing about their content now.

What a reference counts as must not depend on whether its artifact was made by this plan or lay in the store before, or
a second apply would run again. So the fingerprint stands alone while the recordings are those that the artifact was
made from, and where the same plan makes it: its own recordings are hashed there. Otherwise theirs is added.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runner.plan import listing
from runner.plan.fields import Field
from runner.plan.inputs import MISSING, TABLE, Listed, Pinner, digest_of
from runner.plan.reasons import Listing
from runner.plan.step import Input
from runner.schema import reference
from runner.store.local import Store


def recordings(field: Field, target: Input, pinner: Pinner, *, folder: Path) -> list[Listed]:
    """What the table of ``target`` names outside of its artifact, from the spec's ``folder`` on unless the field has a
    `root` beside it: jobs write paths as their specs have them. Raises PlanError or SpecError.
    """
    assert target.path is not None, f"{target.ref} is not made yet"
    if field.beside("root", None) is None:
        field = replace(field, block=field.block.model_copy(update={"root": "."}))
    found = pinner.listing(replace(field, value=target.path), folder=folder)
    return [entry for entry in found if entry.shown != TABLE and not entry.path.is_relative_to(target.path)]


def pinned(target: Input, found: list[Listed], *, store: Store, planned: bool) -> Input:
    """``target`` with the recordings that its table names; ``planned`` says that a step of this plan makes it."""
    digest = digest_of(found)
    target = replace(target, recordings=digest, missing=sum(entry.digest == MISSING for entry in found))
    if planned or not found or _as_made(target, found, store):
        return target
    mark, sign, path = target.digest.partition("#")
    return replace(target, digest=f"{mark}+{digest}{sign}{path}")


def shown(found: list[Listed]) -> Listing:
    """(path, digest) of each recording."""
    return [(entry.shown, entry.digest) for entry in found]


def _as_made(target: Input, found: list[Listed], store: Store) -> bool:
    """Whether these are the recordings that the artifact was made from, one for one; their folder may be another."""
    made = reference.parse(target.ref)
    assert made.version is not None, f"{target.ref} lies in the store"
    now = [entry.digest for entry in found]
    before = listing.stored(store.layout.version(made.name, made.version)).values()
    return any(now == [row[1] for row in rows if row[0] != TABLE] for rows in before)
