"""Pin the inputs of a spec: commits and digests instead of names."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.plan import corpora, files, fingerprint
from runner.plan.fields import Field
from runner.plan.files import Place
from runner.plan.step import Input
from runner.registry import dataset
from runner.registry.family import Resolved
from runner.registry.resolve import resolve
from runner.schema import manifest
from runner.schema.errors import PlanError
from runner.schema.marks import Mark
from runner.store.digests import Digests

MISSING = "missing"  # stands for the digest of a recording that a manifest names and nobody has: the job goes on
TABLE = "(table)"  # stands for the manifest itself, whose name decides nothing
FILE = "(file)"  # ... for a file that a field names by itself
# fields beside a MODEL field that say how to read it, and what counts where its block has none
OPTIONS = {"revision": "main", "allow_pickle": False, "trust_remote_code": False, "adapter": None}

Key = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One file behind an input."""

    shown: str  # in results and fingerprints: relative to the spec's folder, or TABLE, or FILE
    path: Path
    digest: str  # of its content, or MISSING
    size: int  # bytes


class Pinner:
    """Pins what lies in folders and on a hub. Looks once at what several steps share; hashes files in one go.

    What ``find`` has found is hashed together when the first digest is asked for: a look-up in the cache of digests
    costs as much for one file as for hundreds.
    """

    def __init__(self, digests: Digests) -> None:
        self._digests = digests
        self._known: dict[Path, tuple[str, int]] = {}  # digest and size
        self._found: dict[Path, None] = {}  # in order, not hashed yet
        self._models: dict[Key, Resolved] = {}
        self._places: dict[Key, list[Place]] = {}
        self._pins: dict[Key, Input] = {}

    def find(self, field: Field, *, folder: Path) -> list[Place]:
        """The files behind a field, in order: of a manifest the table first, of a model on a hub none.

        Raises PlanError or SpecError.
        """
        key = _key(field, field.value, folder)
        if key not in self._places:
            if field.mark is Mark.MODEL:
                places = _of_model(self.resolve(field, id=field.value, folder=folder))
            else:
                places = PLACES[field.mark](field, folder=folder)
            self._places[key] = places
            self._found |= dict.fromkeys(path for _, path in places if path not in self._known)
        return self._places[key]

    def listing(self, field: Field, *, folder: Path) -> list[Listed]:
        """What ``find`` finds, with digests."""
        places = self.find(field, folder=folder)
        if self._found:
            self._hash()
        known = ((shown, path, *self._known[path]) for shown, path in places)
        return [Listed(shown=shown, path=path, digest=digest, size=size) for shown, path, digest, size in known]

    def resolve(self, field: Field, *, id: str, folder: Path) -> Resolved:  # noqa: A002 (the spec's own word)
        """The model of a field; ``id`` is its value, or the folder in the store that its reference leads to."""
        key = _key(field, id, folder)
        if key not in self._models:
            options = {name: field.beside(name, default) for name, default in OPTIONS.items()}
            self._models[key] = resolve(id, folder=folder, **options)
        return self._models[key]

    def model(self, field: Field, *, folder: Path) -> tuple[Input, Resolved]:
        """Pin a MODEL field that names no artifact. Raises PlanError."""
        found, key = self.resolve(field, id=field.value, folder=folder), _key(field, field.value, folder)
        if key not in self._pins:
            listing = self.listing(field, folder=folder)
            self._pins[key] = Input(
                field=field.input,
                ref=found.ref,
                digest=digest_of(listing) if found.commit is None else f"commit:{found.commit}",
                path=found.path,
                files=len(found.files),
                size=sum(size for _, size in found.files),
            )
        return replace(self._pins[key], field=field.input), found

    def data(self, field: Field, *, folder: Path) -> Input:
        """Pin a FILE, FILES, MANIFEST or CORPUS field that names no artifact. Raises PlanError or SpecError."""
        key = _key(field, field.value, folder)
        if key not in self._pins and field.mark is Mark.CORPUS and corpora.on_hub(field):
            self._pins[key] = _of_hub(field)
        if key not in self._pins:
            listing = self.listing(field, folder=folder)
            inside = [entry for entry in listing if entry.shown not in {TABLE, FILE}]
            self._pins[key] = Input(
                field=field.input,
                ref=_ref(field.value),
                digest=digest_of(listing),
                path=None if _several(field, folder) else os.path.normpath(folder / field.value),
                files=len(inside),
                size=sum(entry.size for entry in inside),
                missing=sum(entry.digest == MISSING for entry in inside),
            )
        return replace(self._pins[key], field=field.input)

    def _hash(self) -> None:
        sizes = {path: size for path in self._found if (size := _plain_size(path)) is not None}
        digests = zip(sizes.items(), self._digests.of(list(sizes)), strict=True)
        self._known |= dict.fromkeys(self._found, (MISSING, 0))
        self._known |= {path: (digest, size) for (path, size), digest in digests if digest}
        self._found = {}


def digest_of(listing: Sequence[Listed]) -> str:
    """Digest of the files behind an input, as it stands in ``Input.digest``."""
    return fingerprint.of_listing((entry.shown, entry.digest) for entry in listing)


def _key(field: Field, value: str | Sequence[str], folder: Path) -> Key:
    """What must be the same for two fields to mean the same files."""
    beside = [field.beside(name, default) for name, default in (*OPTIONS.items(), ("root", None), ("split", None))]
    on_hub = field.mark is Mark.MODEL and not str(value).startswith(".")
    return field.mark, value if isinstance(value, str) else tuple(value), None if on_hub else folder, *beside


def _several(field: Field, folder: Path) -> bool:
    """Whether the field means files that have no one path."""
    if field.mark is Mark.CORPUS:
        return corpora.is_pattern(field.value, folder=folder)
    return field.mark is Mark.FILES


def _of_hub(field: Field) -> Input:
    found = dataset.resolve(field.value, **{name: field.beside(name, None) for name in ("revision", "split")})
    sizes = [size for _, size in found.files]
    return Input(field=field.input, ref=found.ref, digest=found.digest, files=len(sizes), size=sum(sizes))


def _of_patterns(field: Field, *, folder: Path) -> list[Place]:
    return [(name, folder / name) for name in files.expand(field.value, folder=folder)]


def _of_file(field: Field, *, folder: Path) -> list[Place]:
    path = folder / field.value
    if _plain_size(path) is None:
        raise PlanError(f"{field.value!r} is no file (looked in {str(folder)!r})")
    return [(FILE, path)]


def _of_manifest(field: Field, *, folder: Path) -> list[Place]:
    table = Path(field.value)
    named = files.of_manifest(table, root=field.beside("root", None), folder=folder)
    if manifest.is_arrow(folder / table):
        return [(name, folder / table / name) for name in named]
    return [(TABLE, manifest.table_of(folder / table)), *((name, folder / name) for name in named)]


PLACES = {Mark.FILE: _of_file, Mark.FILES: _of_patterns, Mark.MANIFEST: _of_manifest, Mark.CORPUS: corpora.places}


def _of_model(model: Resolved) -> list[Place]:
    if model.commit is not None:
        return []
    assert model.path is not None, "a model without a commit lies in a folder"
    return [(name, Path(model.path, name)) for name, _ in model.files]


def _ref(value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        return value
    more = f", and {len(value) - 3} more" if len(value) > 3 else ""
    return ", ".join(value[:3]) + more


def _plain_size(path: Path) -> int | None:
    """Bytes of a plain file, else None: to read a pipe or a device that a manifest names would never end."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
