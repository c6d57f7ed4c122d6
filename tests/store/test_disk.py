"""A full, read-only or forbidden disk: one line with the place and what to do, and nothing half-published."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runner.schema.errors import StoreError
from runner.store.gc import collect
from runner.store.local import Store, open_store
from runner.store.verify import verify
from tests.store import killed

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and changing user need root")


@contextmanager
def _mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path: other users can't enter there
        Path(folder).chmod(0o755)
        with _mounted(Path(folder) / "small", "size=256k,mode=755") as disk:
            yield disk


def _nothing_happened(store: Store) -> None:
    assert store.versions("a") == ["v1"] and not verify(store).damage
    assert [p.name for p in sorted((store.root / "a").iterdir())] == ["latest", "v1"]
    assert not [p for p in store.root.rglob("*") if ".tmp-" in p.name]


@root_only
def test_a_full_disk(small_disk: Path) -> None:
    store = open_store(str(small_disk / "store"))
    killed.publish(store, 1)
    with store.lease("a") as lease:
        draft = killed.draft(store, lease, 2)
        with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
            while True:
                filler.write(b"x" * 4096)
        with pytest.raises(StoreError, match="No space left on device; free some space") as caught:
            store.publish(draft, lease=lease)
        assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.ENOSPC
        _nothing_happened(store)
        (small_disk / "filler").unlink()
        assert store.publish(draft, lease=lease).version == "v2"
    assert not verify(store).damage


@root_only
def test_a_full_disk_while_copying_from_another(small_disk: Path, tmp_path: Path) -> None:
    store = open_store(str(small_disk / "store"))
    killed.publish(store, 1)
    (tmp_path / "big").write_bytes(os.urandom(400_000))
    with store.lease("a") as lease:
        draft = killed.draft(store, lease, 2)
        larger = {**vars(draft), "reports": {"report.html": tmp_path / "big"}}
        with pytest.raises(StoreError, match="No space left on device"):
            store.publish(type(draft)(**larger), lease=lease)
    _nothing_happened(store)
    collect(store, delete=True, grace_s=0)


def test_a_limit_on_file_sizes(store: Store) -> None:
    killed.publish(store, 1)
    with store.lease("a") as lease:
        draft = killed.draft(store, lease, 2)
        draft.spec["long"] = "x" * 100_000
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        try:
            with pytest.raises(StoreError, match="File too large; raise the limit on file sizes"):
                store.publish(draft, lease=lease)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        _nothing_happened(store)
        assert store.publish(draft, lease=lease).version == "v2"


@root_only
def test_a_read_only_disk(small_disk: Path) -> None:
    store = open_store(str(small_disk / "store"))
    killed.publish(store, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for change in (lambda: store.lease("a"), lambda: store.link("a@v1", "b"), lambda: store.point_latest("a", "v1")):
        with pytest.raises(StoreError, match="Read-only file system; mount it writable or choose another store"):
            change()
    assert store.get("a") and store.by_fingerprint(killed.fingerprint_of(1), "a") == "a@v1"
    assert not verify(store).damage and not collect(store).deleted


@contextmanager
def _as_nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@root_only
def test_a_store_of_somebody_else(small_disk: Path) -> None:
    store = open_store(str(small_disk / "store"))
    killed.publish(store, 1)
    with _as_nobody():
        assert store.get("a")
        for change in (lambda: store.lease("a"), lambda: store.point_latest("a", "v1")):
            with pytest.raises(StoreError, match=r"Permission denied; allow it for this user or choose another store"):
                change()
    (store.root / "a" / "v1" / "manifest.json").chmod(0)
    with _as_nobody(), pytest.raises(StoreError, match=r"can't read .*manifest\.json': Permission denied"):
        store.latest("a")


def test_a_file_where_a_folder_should_be(store: Store) -> None:
    store.root.mkdir()
    (store.root / ".leases").touch()
    with pytest.raises(StoreError, match=r"\.leases/.*: Not a directory; move the file away"):
        store.lease("a")


def test_a_file_that_changes_meanwhile(store: Store, make_draft: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.store import blobs

    real = blobs.digest_file

    def slow(path: Path) -> str:
        digest = real(path)
        if path.name == "texts.jsonl":
            with path.open("ab") as file:
                file.write(b"more")
        return digest

    with store.lease("a") as lease:
        draft = make_draft(lease)
        monkeypatch.setattr(blobs, "digest_file", slow)
        with pytest.raises(StoreError, match=r"texts\.jsonl' changed while it was being published"):
            store.publish(draft, lease=lease)
    assert store.names() == []
