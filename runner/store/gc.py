"""What can go, and its going: first into `.trash/`, later for good. Nothing of a name that somebody holds is touched.

Kept are all versions and what they link, the quarantine, runs that did not succeed (to go on with), and whatever a
living process of this machine is writing: temporary names say who made them.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.store import leases, lookup
from runner.store.blobs import blob_path
from runner.store.disk import make_folder, storing, sync_folder, trash_entry
from runner.store.local import Store
from runner.store.manifest import Manifest
from runner.store.owner import STAGING, TEMP, maker_state
from runner.store.paths import is_run
from runner.store.runs import read_run

Inode = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """Something that can go."""

    path: str  # relative to the store
    why: str
    size: int  # bytes that its going frees; what other links keep is not counted


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a collection found or did."""

    garbage: tuple[Garbage, ...]
    deleted: bool  # False: only looked
    freed: int  # bytes given back to the disk (only looked: that would be)
    waiting: int  # bytes in the trash that are younger than the grace period


def collect(
    store: Store, *, delete: bool = False, grace_s: float = 3600.0, keep_versions: int | None = None
) -> Collected:
    """Find what can go; with ``delete`` move it to the trash and delete what has lain there longer than ``grace_s``.

    Args:
        keep_versions: keep that many of the newest versions of each name, the latest, and what kept ones were made of.

    Raises:
        StoreError: the store can't be read or written.
    """
    with storing("clean the store", store.root):
        seek = _Seek(store, grace_s=grace_s, keep_versions=keep_versions)
        items = list(seek.garbage())
        waiting = seek.waiting
        if not delete:
            return Collected(garbage=tuple(items), deleted=False, freed=sum(g.size for g in items), waiting=waiting)
        moved = _move(store, items, before=seek.now)
        freed, left = _purge(store.layout.trash, grace_s)
    return Collected(garbage=tuple(moved), deleted=True, freed=freed, waiting=left)


class _Seek:
    """One look through the store. Counts links, so that each byte is told once, where its last link goes."""

    def __init__(self, store: Store, *, grace_s: float, keep_versions: int | None) -> None:
        self._store, self._layout = store, store.layout
        self._grace_s, self._keep_versions = grace_s, keep_versions
        self.now = time.time()
        self._held = {h.name for h in leases.holders(self._layout.leases) if h.live}
        self._links: Counter[Inode] = Counter()  # links that are garbage or in the trash
        self._all = list(lookup.everything(self._layout))
        self._quarantined = list(lookup.quarantined(self._layout))
        self.waiting = self._size(self._layout.trash)

    def garbage(self) -> Iterator[Garbage]:
        """Everything that can go; blobs last, because they are free only when their links are."""
        if not self._store.root.is_dir():
            return
        old = set(self._old_versions())
        yield from (self._item(self._store.folder(m), "an old version") for m in self._all if _ref(m) in old)
        yield from self._temporary()
        yield from self._runs()
        yield from self._old_quarantine()
        yield from self._old_leases()
        yield from self._blobs([m for m in self._all if _ref(m) not in old])

    def _item(self, path: Path, why: str) -> Garbage:
        return Garbage(path=str(path.relative_to(self._store.root)), why=why, size=self._size(path))

    def _size(self, path: Path) -> int:
        freed = 0
        for file in [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]:
            if file.is_symlink() or not file.is_file():
                continue
            stat = file.stat()
            self._links[stat.st_dev, stat.st_ino] += 1
            if self._links[stat.st_dev, stat.st_ino] == stat.st_nlink:
                freed += stat.st_size
        return freed

    def _old_versions(self) -> Iterator[str]:
        if self._keep_versions is None:
            return
        kept: set[str] = set()
        for name in lookup.names(self._layout):
            own = [m for m in self._all if m.name == name]  # newest first
            current = lookup.latest(self._layout, name)
            chosen = own if name in self._held else own[: self._keep_versions]
            kept |= {_ref(m) for m in (*chosen, *([current] if current else []))}
        parts = {_ref(m): set(_made_of(m)) for m in self._all}
        new = kept
        while new:
            new = {part for ref in new for part in parts.get(ref, set())} - kept
            kept |= new
        yield from (ref for ref in parts if ref not in kept)

    def _temporary(self) -> Iterator[Garbage]:
        layout = self._layout
        places = [layout.root, layout.leases, layout.blobs, layout.runs, layout.quarantine]
        places += [layout.root / name for name in lookup.names(layout)]
        places += [*layout.quarantine.glob("*"), *layout.blobs.glob("sha256/*")]
        places += [run for run in layout.runs.glob("*") if read_run(run)]  # what never began goes as a whole
        for place in places:
            for path in place.glob(".*") if place.is_dir() else ():
                if path.name.startswith((TEMP, STAGING)) and self._is_left_over(path):
                    yield self._item(path, "left over from a write that was cut off")

    def _is_left_over(self, path: Path) -> bool:
        state = maker_state(path.name)
        return state == "dead" or (state == "elsewhere" and self._is_old(path))

    def _is_old(self, path: Path) -> bool:
        return path.lstat().st_ctime < self.now - self._grace_s

    def _runs(self) -> Iterator[Garbage]:
        succeeded = {str(m.run.get("id")) for m in self._all}
        for folder in sorted(self._layout.runs.iterdir()) if self._layout.runs.is_dir() else ():
            if not is_run(folder.name) or folder.name.partition(".")[0] in self._held:
                continue
            if folder.name in succeeded:
                parts = [folder / part for part in ("checkpoints", "out", "records") if (folder / part).exists()]
                yield from (self._item(part, "of a run that succeeded") for part in parts)
            elif read_run(folder) is None:
                yield self._item(folder, "a run that never began")

    def _old_quarantine(self) -> Iterator[Garbage]:
        published = {(m.name, m.fingerprint) for m in self._all}
        for manifest, folder in self._quarantined:
            if (manifest.name, manifest.fingerprint) in published and manifest.name not in self._held:
                yield self._item(folder, "meanwhile published")

    def _old_leases(self) -> Iterator[Garbage]:
        for holder in leases.holders(self._layout.leases):
            path = self._layout.leases / f"{holder.name}.{holder.number}.json"
            if holder.name not in self._held and self._is_old(path):
                yield self._item(path, "a lease that nobody holds")

    def _blobs(self, kept: list[Manifest]) -> Iterator[Garbage]:
        used = {f.sha256 for m in (*kept, *(m for m, _ in self._quarantined)) for f in (*m.files, *m.records)}
        for path in sorted(self._layout.blobs.glob("sha256/*/*")):
            if path == blob_path(self._layout.blobs, path.name) and path.name not in used and self._is_free(path):
                yield self._item(path, "no artifact has it")

    def _is_free(self, blob: Path) -> bool:
        # a version in the making links its blobs before its manifest names them; where links are refused, time tells
        stat = blob.stat()
        linked = stat.st_nlink - self._links[stat.st_dev, stat.st_ino] > 1
        return not linked and (not self._held or self._is_old(blob)) and stat.st_ctime < self.now


def _ref(manifest: Manifest) -> str:
    return f"{manifest.name}@{manifest.version}"


def _made_of(manifest: Manifest) -> Iterator[str]:
    for entry in manifest.inputs:
        ref = str(entry.get("ref", ""))
        if ref.startswith("artifact:"):
            yield ref.removeprefix("artifact:").partition("#")[0]


def _move(store: Store, items: list[Garbage], *, before: float) -> list[Garbage]:
    grave, moved = store.layout.trash / trash_entry(), []
    for item in items:
        source, target = store.root / item.path, grave / item.path
        try:
            if source.lstat().st_ctime >= before:
                continue  # somebody took it into use since it was looked at
            make_folder(target.parent)
            source.rename(target)
        except FileNotFoundError:
            continue  # another gc was quicker
        sync_folder(source.parent)
        moved.append(item)
    return moved


def _purge(trash: Path, grace_s: float) -> tuple[int, int]:
    """(bytes freed, bytes left) after what is older than the grace period has been deleted."""
    freed, left = 0, dict[Inode, int]()
    for grave in sorted(trash.iterdir()) if trash.is_dir() else ():
        when = grave.name.partition("-")[0]
        files = [path for path in grave.rglob("*") if path.is_file() and not path.is_symlink()]
        if when.isdigit() and int(when) > time.time() - grace_s:
            left |= {(s.st_dev, s.st_ino): s.st_size for s in (path.stat() for path in files)}
            continue
        for path in files:
            stat = path.stat()
            freed += stat.st_size if stat.st_nlink == 1 else 0
            path.unlink()
        shutil.rmtree(grave)
    return freed, sum(left.values())
