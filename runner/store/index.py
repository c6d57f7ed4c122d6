"""Fingerprint -> versions, without reading every manifest: `.index/<fingerprint>/<name>@v3`, empty files.

An entry is written before its version becomes visible. Entries too many do no harm (the manifest decides), and without
the folder the store is read through once; the next writer makes it anew.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections import defaultdict

from runner.store import lookup
from runner.store.disk import make_folder, sync_folder
from runner.store.manifest import Manifest
from runner.store.owner import TEMP, unique
from runner.store.paths import Layout, is_fingerprint, is_name, is_version, number


class Index:
    """Look-ups by fingerprint in one store."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._scan: dict[str, list[tuple[str, str]]] | None = None  # what stands in where there is no folder

    def find(self, fingerprint: str, name: str) -> Manifest | None:
        """An undamaged version with this fingerprint: of ``name`` (latest first, then newest), else of any name."""
        own = lookup.latest(self._layout, name)
        if own and self._fits(own, fingerprint):
            return own
        for entry in sorted(self.entries(fingerprint), key=lambda e: (e[0] != name, e[0], -number(e[1]))):
            manifest = lookup.read_manifest(self._layout.version(*entry))
            if manifest and self._fits(manifest, fingerprint):
                return manifest
        return None

    def _fits(self, manifest: Manifest, fingerprint: str) -> bool:
        folder = self._layout.version(manifest.name, manifest.version)
        return manifest.fingerprint == fingerprint and not lookup.damage(folder, manifest)

    def entries(self, fingerprint: str) -> list[tuple[str, str]]:
        """(name, version) noted for a fingerprint; some may be gone."""
        if not is_fingerprint(fingerprint):
            return []
        try:
            found = [entry.name.partition("@")[::2] for entry in (self._layout.index / fingerprint).iterdir()]
            return [(name, version) for name, version in found if is_name(name) and is_version(version)]
        except FileNotFoundError:
            return [] if self._layout.index.is_dir() else self._scanned().get(fingerprint, [])

    def _scanned(self) -> dict[str, list[tuple[str, str]]]:
        if self._scan is None:
            self._scan = defaultdict(list)
            for manifest in lookup.everything(self._layout):
                self._scan[manifest.fingerprint].append((manifest.name, manifest.version))
        return self._scan

    def note(self, fingerprint: str, name: str, version: str) -> None:
        """Note a version; done before it becomes visible."""
        if not self._layout.index.is_dir():
            self.rebuild()
        folder = self._layout.index / fingerprint
        make_folder(folder)
        (folder / f"{name}@{version}").touch()
        sync_folder(folder)

    def rebuild(self) -> None:
        """Make the folder from the manifests, beside, and put it in its place at one instant."""
        make_folder(self._layout.root)
        beside = self._layout.root / unique(TEMP)
        beside.mkdir()
        found = list(lookup.everything(self._layout))
        for manifest in found:
            (beside / manifest.fingerprint).mkdir(exist_ok=True)
            (beside / manifest.fingerprint / f"{manifest.name}@{manifest.version}").touch()
        if found:
            os.sync()  # once: folder by folder it takes 3 ms for each artifact
        try:
            beside.rename(self._layout.index)
        except OSError as error:
            shutil.rmtree(beside)
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:  # those: another writer was quicker
                raise
        sync_folder(self._layout.root)
