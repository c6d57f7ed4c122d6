"""Copying an artifact's files out of the store, checked on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from runner.schema.errors import StoreError, UsageError
from runner.store.disk import storing
from runner.store.local import Store
from runner.store.manifest import File, Manifest
from runner.store.owner import TEMP, unique
from runner.store.paths import FILES

_PIECE = 1 << 20  # bytes


def copy_out(store: Store, manifest: Manifest, *, path: str | None, to: Path, force: bool) -> list[Path]:
    """Copy files of an artifact below ``to``; gives the copies.

    Args:
        path: a file or folder inside ``files/``; ``records/...`` and ``report.html`` name what lies beside. None:
            all of ``files/``.
        force: replace files that exist.

    Raises:
        UsageError: no such path, or a file exists already; nothing was copied then.
        StoreError: the content is not what the manifest says, or the disk refused.
    """
    pairs = [(file, to / target) for file, target in _chosen(manifest, path)]
    taken = [target for _, target in pairs if target.exists() or target.is_symlink()]
    if taken and not force:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise UsageError(
            f"{str(taken[0])!r}{more} exists already; --force replaces, or choose another folder with --to"
        )
    folder = store.folder(manifest)
    for file, target in pairs:
        with storing("copy a file out of the store", target):
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(folder / file.path, target, file)
    return [target for _, target in pairs]


def _chosen(manifest: Manifest, path: str | None) -> Sequence[tuple[File, str]]:
    if path is None:
        return [(file, file.path.removeprefix(FILES + "/")) for file in manifest.files]
    for whole, rows in ((f"{FILES}/{path}", manifest.files), (path, (*manifest.files, *manifest.records))):
        above = whole.rpartition("/")[0]
        found = [file for file in rows if file.path == whole or file.path.startswith(whole + "/")]
        if found:
            return [(file, file.path[len(above) + 1 if above else 0 :]) for file in found]
    inside = ", ".join(sorted({f.path.removeprefix(FILES + "/").partition("/")[0] for f in manifest.files})[:10])
    raise UsageError(f"{manifest.name}@{manifest.version} has no {path!r}; it has {inside or 'no files'}")


def _copy(source: Path, target: Path, file: File) -> None:
    temp, digest = target.parent / unique(TEMP), hashlib.sha256()
    try:
        with source.open("rb") as reader, temp.open("xb") as writer:
            while piece := reader.read(_PIECE):
                digest.update(piece)
                writer.write(piece)
        if digest.hexdigest() != file.sha256:
            raise StoreError(
                f"{str(source)!r} is damaged: its sha256 is {digest.hexdigest()}, the manifest says {file.sha256}; "
                f"`runner artifacts verify` says what else is, apply its spec again to make it anew"
            )
        temp.replace(target)
    finally:
        temp.unlink(missing_ok=True)
