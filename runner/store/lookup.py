"""Finding artifacts: which versions there are, which is the latest, which has a fingerprint. A version folder without
a valid manifest does not exist."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from runner.schema.errors import StoreError
from runner.store.manifest import SCHEMA_VERSION, File, Manifest
from runner.store.paths import (
    FILES,
    LATEST,
    MANIFEST,
    RECORDS,
    REPORTS,
    Layout,
    is_fingerprint,
    is_inside,
    is_name,
    is_run,
    is_version,
    number,
    run_number,
)


def load_manifest(folder: Path) -> Manifest:
    """The manifest in a version's folder.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
        ValueError: it is damaged; the text says how.
    """
    data = json.loads((folder / MANIFEST).read_bytes())
    try:
        manifest = Manifest.from_json(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a part is missing or of another type: {error}") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise ValueError(f"schema_version is {manifest.schema_version!r}, this runner reads {SCHEMA_VERSION}")
    if not isinstance(manifest.fingerprint, str) or not is_fingerprint(manifest.fingerprint):
        raise ValueError(f"fingerprint {manifest.fingerprint!r} is not 64 hex digits")
    for file in manifest.files:
        _check_file(file, file.path.startswith(FILES + "/"))
    for file in manifest.records:
        _check_file(file, file.path.startswith(RECORDS + "/") or file.path in REPORTS)
    return manifest


def _check_file(file: File, in_place: bool) -> None:
    if not in_place or not is_inside(file.path):
        raise ValueError(f"the file path {file.path!r} is not allowed")
    if type(file.size) is not int or not isinstance(file.sha256, str) or not is_fingerprint(file.sha256):
        raise ValueError(f"size or sha256 of {file.path!r} is damaged")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a version's folder; None when there is no valid one for this place."""
    try:
        manifest = load_manifest(folder)
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return None
    except OSError as error:
        raise StoreError(f"can't read {str(folder / MANIFEST)!r}: {error.strerror}; allow it for this user") from error
    name = folder.parent.name.partition(".")[0]  # a quarantined one lies under its run's id, which begins with the name
    return manifest if (manifest.name, manifest.version) == (name, folder.name) else None


def version_folders(folder: Path) -> list[str]:
    """Names of all version folders, valid or not, lowest first."""
    try:
        found = [entry.name for entry in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted((v for v in found if is_version(v)), key=number)


def names(layout: Layout) -> list[str]:
    """Names that have a folder, sorted."""
    try:
        return sorted(e.name for e in os.scandir(layout.root) if is_name(e.name) and e.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def manifests(folder: Path) -> Iterator[Manifest]:
    """Every valid version of one name, highest first."""
    for version in reversed(version_folders(folder)):
        manifest = read_manifest(folder / version)
        if manifest:
            yield manifest


def latest(layout: Layout, name: str) -> Manifest | None:
    """The version that ``latest`` names; when that is missing or damaged, the highest valid one."""
    folder = layout.name(name)
    try:
        version = (folder / LATEST).read_bytes().decode("ascii", "replace").strip()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        version = ""
    manifest = read_manifest(folder / version) if is_version(version) else None
    return manifest or next(manifests(folder), None)


def damage(folder: Path, manifest: Manifest) -> str | None:
    """What is wrong with the sizes of a version's files and records; None when all are there in full."""
    for file in (*manifest.files, *manifest.records):
        try:
            size = (folder / file.path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return f"{file.path!r} is missing"
        if size != file.size:
            return f"{file.path!r} has {size:,} bytes instead of {file.size:,}"
    return None


def quarantined(layout: Layout, prefix: str = "") -> Iterator[tuple[Manifest, Path]]:
    """Every quarantined artifact whose run id begins with ``prefix``, with its folder; newest run first."""
    if not layout.quarantine.is_dir():
        return
    found = [p for p in layout.quarantine.iterdir() if p.name.startswith(prefix) and is_run(p.name)]
    for parent in sorted(found, key=lambda p: run_number(p.name), reverse=True):
        yield from ((manifest, parent / manifest.version) for manifest in manifests(parent))


def everything(layout: Layout) -> Iterator[Manifest]:
    """Every valid version of every name."""
    for name in names(layout):
        yield from manifests(layout.name(name))
