"""`Store`: artifacts on a local disk. Nothing is created before something is written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.schema.errors import StoreError, UsageError
from runner.store import leases, lookup, paths, runs
from runner.store.disk import discard, storing
from runner.store.index import Index
from runner.store.leases import Holder, Lease
from runner.store.manifest import Manifest
from runner.store.paths import Layout, check_run
from runner.store.publish import Draft, Kept, keep, keep_reports, kept_in, manifest_of, next_version, place, point
from runner.store.runs import Run


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """An artifact that missed a gate."""

    folder: Path
    manifest: Manifest


def open_store(url: str) -> Store:
    """The store at a local path; it need not exist yet.

    Raises:
        UsageError: a URL, or a path that is no folder.
    """
    if "://" in url:
        raise UsageError(
            f"the store {url!r} is a URL; only local paths work until shared stores come, for example ./artifacts"
        )
    root = Path(url).expanduser().absolute()
    if root.exists() and not root.is_dir():
        raise UsageError(f"the store {url!r} is a file; give a folder, for example --store ./artifacts")
    return Store(root)


class Store:
    """Artifacts, runs and leases below one folder. Any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = Layout(root=root)
        self._index = Index(self.layout)

    # what there is

    def names(self) -> list[str]:
        """Names with at least one version, sorted."""
        with storing("read the store", self.root):
            return [n for n in lookup.names(self.layout) if next(lookup.manifests(self.layout.name(n)), None)]

    def versions(self, name: str) -> list[str]:
        """Versions of a name, lowest first."""
        with storing("read the store", self.root):
            return [m.version for m in lookup.manifests(self.layout.name(name))][::-1]

    def latest(self, name: str) -> Manifest | None:
        """The version that ``latest`` names; without it the highest. Sizes are not looked at: ``get`` does."""
        with storing("read the store", self.root):
            return lookup.latest(self.layout, name)

    def manifest(self, name: str, version: str | None = None) -> Manifest | None:
        """A version (None: the latest), its files not looked at; None when there is none."""
        with storing("read the store", self.root):
            if version is None:
                return lookup.latest(self.layout, name)
            return lookup.read_manifest(self.layout.version(name, version))

    def get(self, name: str, version: str | None = None) -> Manifest | None:
        """A version (None: the latest) whose files are all there in full; None when there is none.

        Raises:
            StoreError: a file is missing or has another size.
        """
        manifest = self.manifest(name, version)
        with storing("read the store", self.root):
            wrong = manifest and lookup.damage(self.folder(manifest), manifest)
        if manifest and wrong:
            raise StoreError(
                f"{name}@{manifest.version} is damaged: {wrong}; `runner artifacts verify {name}@{manifest.version}` "
                f"says all of it, apply its spec again to make it anew"
            )
        return manifest

    def folder(self, manifest: Manifest) -> Path:
        """Folder of a version; a file of the manifest lies at ``folder / file.path``."""
        return self.layout.version(manifest.name, manifest.version)

    def by_fingerprint(self, fingerprint: str, name: str) -> str | None:
        """``NAME@vN`` of an undamaged artifact with this fingerprint: of ``name`` if there is one, else of any name."""
        with storing("read the store", self.root):
            found = self._index.find(fingerprint, name)
        return f"{found.name}@{found.version}" if found else None

    # writing

    def lease(self, name: str, run: str = "") -> Lease:
        """Hold a name for writing; use it in a ``with`` block. Raises ConflictError that names the holder."""
        self.layout.name(name)
        return leases.acquire(self.layout.leases, name, run=run)

    def holder(self, name: str) -> Holder | None:
        """Who holds a name now."""
        with storing("read the leases", self.layout.leases):
            return next((h for h in leases.holders(self.layout.leases, name) if h.live), None)

    def next_version(self, name: str) -> str:
        """The version that whoever holds the lease on ``name`` will publish."""
        with storing("read the store", self.root):
            return next_version(self.layout.name(name))

    def publish(self, draft: Draft, *, lease: Lease) -> Manifest:
        """Make a draft the next version of its name and the latest; ``out`` and ``records`` in a run's folder go.

        Raises:
            ConflictError: the lease was lost. StoreError: the disk refused, a link leads outside. Nothing is visible.
        """
        assert lease.name == draft.name, f"a lease on {lease.name!r} can't publish {draft.name!r}"
        with storing(f"publish {draft.name!r}", self.root):
            manifest = self._place_draft(self.layout.name(draft.name), draft, lease)
            self._point(manifest, lease)
        self._clear(draft)
        return manifest

    def quarantine(self, draft: Draft, *, lease: Lease) -> Quarantined:
        """Keep a draft that missed a gate under `.quarantine/<run id>/`, where no name leads to it."""
        parent = self.layout.quarantine / check_run(draft.run["id"])
        with storing(f"quarantine {draft.name!r}", parent):
            manifest = self._place_draft(parent, draft, lease)
            for old in lookup.version_folders(parent)[:-1]:
                discard(parent / old, self.layout.trash)
        self._clear(draft)
        return Quarantined(folder=parent / manifest.version, manifest=manifest)

    def _place_draft(self, parent: Path, draft: Draft, lease: Lease) -> Manifest:
        lease.check()
        files, records = keep(draft, self.layout.blobs)
        return self._place(parent, manifest_of(draft, files, records), [*files, *records], lease)

    def _place(self, parent: Path, manifest: Manifest, kept: Sequence[Kept], lease: Lease) -> Manifest:
        def before(final: Manifest) -> None:
            if parent.parent == self.root:
                self._index.note(final.fingerprint, final.name, final.version)
            lease.check()

        return place(parent, manifest, kept, before=before)

    def _clear(self, draft: Draft) -> None:
        for folder in (draft.out, draft.records):
            if folder.is_relative_to(self.layout.runs):
                shutil.rmtree(folder, ignore_errors=True)  # all of it is published; gc takes what can't be removed now

    def _point(self, manifest: Manifest, lease: Lease) -> None:
        lease.check()
        point(self.layout.name(manifest.name), manifest.version)

    def find_quarantined(self, name: str, fingerprint: str) -> Quarantined | None:
        """The newest undamaged artifact of this name and fingerprint that missed a gate."""
        with storing("read the quarantine", self.layout.quarantine):
            for manifest, folder in lookup.quarantined(self.layout, f"{name}.{fingerprint[:8]}."):
                if manifest.fingerprint == fingerprint and not lookup.damage(folder, manifest):
                    return Quarantined(folder=folder, manifest=manifest)
        return None

    def release(
        self,
        quarantined: Quarantined,
        *,
        spec: dict[str, Any],
        gates: Sequence[dict[str, Any]],
        reports: Mapping[str, Path],
        lease: Lease,
    ) -> Manifest:
        """Publish a quarantined artifact whose gates pass now, under the spec that says so and with new reports."""
        old = quarantined.manifest
        assert lease.name == old.name, f"a lease on {lease.name!r} can't publish {old.name!r}"
        with storing(f"publish {old.name!r}", self.root):
            lease.check()
            files = kept_in(quarantined.folder, old.files)
            records = kept_in(quarantined.folder, (r for r in old.records if r.path not in reports))
            records += keep_reports(reports, self.layout.blobs)
            new = replace(old, spec=spec, gates=tuple(gates), records=tuple(row for row, _ in records))
            manifest = self._place(self.layout.name(old.name), new, [*files, *records], lease)
            self._point(manifest, lease)
            discard(quarantined.folder.parent, self.layout.trash)
        return manifest

    def link(self, source: str, name: str, *, lease: Lease | None = None) -> Manifest:
        """Make ``source`` (``A@v1``) the next version of another name and its latest; nothing is copied.

        Raises:
            StoreError: there is no such artifact, or it is damaged.
        """
        reference = paths.reference(source)
        assert reference.name != name, "a name can't link to itself; point_latest moves its latest version"
        old = self.get(reference.name, reference.version)
        if old is None:
            raise StoreError(f"{source!r} does not exist; `runner artifacts ls` lists what does")
        new = replace(old, name=name, linked_from=f"{old.name}@{old.version}")
        with storing(f"link {source!r}", self.root), nullcontext(lease) if lease else self.lease(name) as held:
            kept = kept_in(self.folder(old), (*old.files, *old.records))
            manifest = self._place(self.layout.name(name), new, kept, held)
            self._point(manifest, held)
        return manifest

    def point_latest(self, name: str, version: str, *, lease: Lease | None = None) -> None:
        """Let ``latest`` name another version. Raises StoreError when there is no such version."""
        with nullcontext(lease) if lease else self.lease(name) as held:
            held.check()
            point(self.layout.name(name), version)

    # runs

    def runs(self) -> list[Run]:
        """Every run, oldest first."""
        return runs.read_runs(self.layout.runs)

    def run_folder(self, run: str) -> Path:
        """Folder of a run: run.json, events.ndjson, log.txt, checkpoints/, out/, records/."""
        return self.layout.runs / check_run(run)

    def start_run(self, name: str, *, kind: str, fingerprint: str, executor: str, lease: Lease) -> Run:
        """Begin an attempt: the next one of a run that did not succeed, else the first of a new run.

        ``out/`` and ``records/`` are made empty; ``checkpoints/`` stay.
        """
        assert lease.name == name, f"a lease on {lease.name!r} can't run {name!r}"
        lease.check()
        published = {str(m.run.get("id")) for m in lookup.manifests(self.layout.name(name))}
        run = runs.begin(
            self.layout.runs, name=name, kind=kind, fingerprint=fingerprint, executor=executor, succeeded=published
        )
        lease.note_run(run.id)
        return run
