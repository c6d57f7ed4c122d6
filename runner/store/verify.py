"""Whether artifacts still are what their manifests say: every byte, and what they were made from, down to the base."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runner.schema.errors import UsageError
from runner.store import lookup, paths
from runner.store.blobs import blob_path
from runner.store.disk import digest_file, storing
from runner.store.local import Store
from runner.store.manifest import File, Manifest, digest_of
from runner.store.paths import MANIFEST


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is not as the manifest says."""

    where: str  # "a@v1/files/texts.jsonl"
    what: Literal["missing", "changed", "extra", "manifest", "input"]
    detail: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: {self.detail}"


@dataclass(frozen=True, kw_only=True)
class Base:
    """Something from outside the store that an artifact was made from; its digest is on record, nothing to compare."""

    artifact: str
    field: str
    ref: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What a verification looked at and found."""

    artifacts: tuple[str, ...]  # "a@v1", in the order they were looked at, inputs after what was made from them
    files: int
    size: int  # bytes of these files
    damage: tuple[Damage, ...]
    bases: tuple[Base, ...]


def verify(store: Store, reference: str | None = None) -> Verified:
    """Hash one artifact (``NAME`` or ``NAME@vN``) and all it was made from; None: everything in the store.

    Raises:
        UsageError: there is no such artifact; StoreError: the store can't be read.
    """
    with storing("read the store", store.root):
        look = _Look(store)
        if reference is None:
            for name in lookup.names(store.layout):
                for version in lookup.version_folders(store.layout.name(name)):
                    look.artifact(name, version)
            look.other_blobs()
        else:
            look.artifact(*_find(store, reference))
    return Verified(
        artifacts=tuple(look.seen), files=look.files, size=look.size, damage=tuple(look.damage), bases=tuple(look.bases)
    )


def _find(store: Store, text: str) -> tuple[str, str]:
    reference = paths.reference(text)
    version = reference.version
    if version is None:
        latest = store.latest(reference.name)
        version = latest.version if latest else None
    if version is None or not store.layout.version(reference.name, version).is_dir():
        raise UsageError(
            f"there is no artifact {text!r} in {str(store.root)!r}; `runner artifacts ls` lists what there is"
        )
    return reference.name, version


class _Look:
    """One verification. Content is hashed once, however many names it has."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hashed: dict[tuple[int, int], str] = {}
        self.seen: dict[str, None] = {}
        self.files = self.size = 0
        self.damage: list[Damage] = []
        self.bases: list[Base] = []

    def artifact(self, name: str, version: str) -> None:
        """Look at one version, then at what it was made from."""
        me, folder = f"{name}@{version}", self._store.layout.version(name, version)
        if me in self.seen:
            return
        self.seen[me] = None
        manifest = self._manifest(me, folder)
        if manifest is None:
            return
        rows = (*manifest.files, *manifest.records)
        for row in rows:
            self._file(me, folder / row.path, row)
        for extra in sorted(set(_paths(folder)) - {row.path for row in rows} - {MANIFEST}):
            self._found(f"{me}/{extra}", "extra", "not in the manifest")
        for entry in manifest.inputs:
            self._input(me, entry)

    def _manifest(self, me: str, folder: Path) -> Manifest | None:
        try:
            manifest = lookup.load_manifest(folder)
        except FileNotFoundError:
            self._found(f"{me}/{MANIFEST}", "missing", "without it the version does not exist")
            return None
        except (ValueError, AttributeError) as error:
            self._found(f"{me}/{MANIFEST}", "manifest", str(error))
            return None
        if f"{manifest.name}@{manifest.version}" != me:
            self._found(f"{me}/{MANIFEST}", "manifest", f"says it is {manifest.name}@{manifest.version}")
        if digest_of(manifest.files) != manifest.digest:
            self._found(f"{me}/{MANIFEST}", "manifest", "its digest is not that of its list of files")
        return manifest

    def _file(self, me: str, path: Path, row: File) -> None:
        try:
            found, size = self._digest(path), path.stat().st_size
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._found(f"{me}/{row.path}", "missing", f"{row.size:,} bytes, sha256 {row.sha256}")
            return
        self.files, self.size = self.files + 1, self.size + size
        if (found, size) != (row.sha256, row.size):
            told = f"{size:,} bytes, sha256 {found}; the manifest says {row.size:,} bytes, sha256 {row.sha256}"
            self._found(f"{me}/{row.path}", "changed", told)

    def _digest(self, path: Path) -> str:
        stat = path.stat()
        key = stat.st_dev, stat.st_ino
        if key not in self._hashed:
            self._hashed[key] = digest_file(path)
        return self._hashed[key]

    def _input(self, me: str, entry: dict[str, Any]) -> None:
        field, ref, digest = (str(entry.get(key, "")) for key in ("field", "ref", "digest"))
        if not ref.startswith("artifact:"):
            self.bases.append(Base(artifact=me, field=field, ref=ref, digest=digest))
            return
        made = self._made(ref, digest)
        if made is None:
            self._found(f"{me} input {field}", "input", f"{ref} with digest {digest} is not in the store")
            return
        manifest, path = made
        if digest.partition("#")[0].partition("+")[0] not in _digests(manifest, path):
            self._found(f"{me} input {field}", "input", f"{ref} had digest {digest} and is another one now")
        self.artifact(manifest.name, manifest.version)

    def _made(self, ref: str, digest: str) -> tuple[Manifest, str | None] | None:
        try:
            reference = paths.reference(ref)
        except UsageError:
            return None
        kind, _, value = digest.partition(":")
        pinned = f"{reference.name}@{reference.version}" if reference.version else None
        if pinned is None and kind == "fingerprint":
            pinned = self._store.by_fingerprint(value.partition("#")[0], reference.name)
        if pinned is None:
            return None
        name, _, version = pinned.partition("@")
        manifest = lookup.read_manifest(self._store.layout.version(name, version))
        return (manifest, reference.path) if manifest else None

    def other_blobs(self) -> None:
        """Look at the blobs that no artifact showed."""
        blobs = self._store.layout.blobs
        for path in sorted(blobs.glob("sha256/*/*")):
            if path == blob_path(blobs, path.name) and self._digest(path) != path.name:
                self._found(str(path.relative_to(self._store.root)), "changed", "its content is not what its name says")

    def _found(
        self, where: str, what: Literal["missing", "changed", "extra", "manifest", "input"], detail: str
    ) -> None:
        self.damage.append(Damage(where=where, what=what, detail=detail))


def _digests(manifest: Manifest, path: str | None) -> set[str]:
    """All ways to write the digest of what a reference names, without what a plan adds: `+sha256:...#path`."""
    files = {f"sha256:{f.sha256}" for f in manifest.files if path and f.path == f"files/{path}"}
    return {f"fingerprint:{manifest.fingerprint}", f"sha256:{manifest.digest}", *files}


def _paths(folder: Path) -> Iterator[str]:
    for here, _, files in os.walk(folder):
        yield from (str((Path(here) / file).relative_to(folder)) for file in files)
