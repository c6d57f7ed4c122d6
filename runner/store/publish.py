"""Making artifacts visible. The order is all: blobs, a complete version folder beside, its rename, then `latest`.

A kill at any instant leaves what was there before or the new version; what it leaves over has temporary names.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.schema.errors import StoreError
from runner.store import blobs
from runner.store.disk import make_folder, storing, sync_folder, write_atomic
from runner.store.lookup import read_manifest, version_folders
from runner.store.manifest import File, Manifest, digest_of
from runner.store.owner import STAGING, unique
from runner.store.paths import FILES, LATEST, MANIFEST, RECORDS, REPORTS, number

Kept = tuple[File, Path]  # a row of the manifest and where its content lies


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An artifact before it is published: all of its manifest but version, files and digest."""

    name: str
    kind: str
    fingerprint: str
    spec: dict[str, Any]
    inputs: Sequence[dict[str, Any]]  # {field, ref, digest, files, size}
    metrics: dict[str, Any]
    gates: Sequence[dict[str, Any]]  # {name, limit, value, passed}
    ledger: Sequence[dict[str, Any]]
    environment: dict[str, Any]
    code: dict[str, Any]
    run: dict[str, Any]  # id, attempts, started, ended, host, executor
    out: Path  # becomes files/; must not be written to any more
    records: Path  # becomes records/
    reports: Mapping[str, Path]  # "report.html", "report.json" -> where they lie now


def keep(draft: Draft, folder: Path) -> tuple[list[Kept], list[Kept]]:
    """Make blobs (in ``folder``) of a draft's files, and of its records and reports."""
    files = [_keep(folder, f"{FILES}/{path}", source, share=True) for path, source in blobs.tree(draft.out)]
    # the run's own folder goes on being written to; no link may lead from it into a blob
    records = [_keep(folder, f"{RECORDS}/{path}", source, share=False) for path, source in blobs.tree(draft.records)]
    return files, records + keep_reports(draft.reports, folder)


def keep_reports(reports: Mapping[str, Path], folder: Path) -> list[Kept]:
    """Make blobs (in ``folder``) of reports, which are named ``report.html`` and ``report.json``."""
    assert set(reports) <= set(REPORTS), f"{sorted(reports)} are not all of {REPORTS}"
    return [_keep(folder, name, source, share=False) for name, source in reports.items()]


def _keep(folder: Path, path: str, source: Path, *, share: bool) -> Kept:
    digest, size = blobs.put(folder, source, share=share)
    row = File(path=path, size=size, sha256=digest, media_type=blobs.media_type(path))
    return row, blobs.blob_path(folder, digest)


def manifest_of(draft: Draft, files: Iterable[Kept], records: Iterable[Kept]) -> Manifest:
    """The manifest of a draft, its version still open."""
    rows = tuple(row for row, _ in files)
    return Manifest(
        name=draft.name,
        version="v0",
        kind=draft.kind,
        fingerprint=draft.fingerprint,
        spec=draft.spec,
        inputs=tuple(draft.inputs),
        files=rows,
        digest=digest_of(rows),
        records=tuple(row for row, _ in records),
        metrics=draft.metrics,
        gates=tuple(draft.gates),
        ledger=tuple(draft.ledger),
        environment=draft.environment,
        code=draft.code,
        run=draft.run,
    )


def kept_in(folder: Path, rows: Iterable[File]) -> list[Kept]:
    """Files or records of a version that exists in ``folder``."""
    return [(row, Path(os.path.realpath(folder / row.path))) for row in rows]


def place(parent: Path, manifest: Manifest, kept: Iterable[Kept], *, before: Callable[[Manifest], None]) -> Manifest:
    """Make the next version folder in ``parent`` and give the manifest as it became.

    ``before`` is called with it at the last moment before it becomes visible; what it raises stops everything.
    """
    staging = parent / unique(STAGING)
    try:
        make_folder(parent)
        staging.mkdir()
        _fill(staging, kept)
        while True:
            manifest = replace(manifest, version=next_version(parent))
            text = json.dumps(manifest.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
            write_atomic(staging / MANIFEST, text.encode() + b"\n")
            before(manifest)
            if _rename(staging, parent / manifest.version):
                break
        sync_folder(parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)  # what can't be removed now (disk away) gc removes later
        raise
    return manifest


def _fill(staging: Path, kept: Iterable[Kept]) -> None:
    folders = {staging}
    for row, content in kept:
        target = staging / row.path
        folders |= {p for p in target.parents if p.is_relative_to(staging)}
        target.parent.mkdir(parents=True, exist_ok=True)
        blobs.hand_out(content, target)
    for folder in folders:
        sync_folder(folder)


def next_version(parent: Path) -> str:
    """The version after the highest folder, valid or not: no number is given twice."""
    found = version_folders(parent)
    return f"v{number(found[-1]) + 1 if found else 1}"


def _rename(staging: Path, target: Path) -> bool:
    try:
        staging.rename(target)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:  # another writer has this number
            return False
        raise
    return True


def point(folder: Path, version: str) -> None:
    """Let ``latest`` name a version that exists.

    Raises:
        StoreError: there is no such version.
    """
    if read_manifest(folder / version) is None:
        raise StoreError(f"{folder.name}@{version} does not exist; `runner artifacts ls {folder.name}` lists what does")
    with storing("point latest", folder / LATEST):
        write_atomic(folder / LATEST, version.encode() + b"\n")
