"""What may become part of an artifact, and how it is kept where links are refused."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.schema.errors import StoreError
from runner.store.leases import Lease
from runner.store.local import Store
from runner.store.manifest import Manifest
from runner.store.publish import Draft
from runner.store.verify import verify


@pytest.fixture
def lease(store: Store) -> Iterator[Lease]:
    with store.lease("a") as lease:
        yield lease


@pytest.fixture
def draft(lease: Lease, make_draft: Any) -> Draft:
    made: Draft = make_draft(lease)
    return made


def test_links_inside_are_followed(store: Store, lease: Lease, draft: Draft) -> None:
    (draft.out / "again.jsonl").symlink_to("texts.jsonl")
    (draft.out / "model").symlink_to(draft.out / "sub folder")
    manifest = store.publish(draft, lease=lease)
    folder = store.folder(manifest) / "files"
    assert (folder / "again.jsonl").read_bytes() == (folder / "texts.jsonl").read_bytes()
    assert (folder / "model" / "pão.txt").read_text() == "pão\n"
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert not verify(store).damage


def _outside(out: Path, target: Path) -> None:
    (out / "x").symlink_to(target)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda out: _outside(out, Path("/etc/passwd")), "is a link to '/etc/passwd', outside the run's folder"),
        (lambda out: _outside(out, Path("../run.json")), "outside the run's folder; put a copy there"),
        (lambda out: _outside(out, Path("/etc")), "outside the run's folder"),
        (lambda out: _outside(out, Path("nothing")), "is neither a file nor a folder"),
        (lambda out: _outside(out, Path()), "is a link that leads in a circle"),
        (lambda out: os.mkfifo(out / "x"), "is neither a file nor a folder and can't be kept"),
        (lambda out: socket.socket(socket.AF_UNIX).bind(str(out / "x")), "is neither a file nor a folder"),
        (lambda out: (out / os.fsdecode(b"caf\xe9")).touch(), r"is not UTF-8; rename it"),
    ],
    ids=["file", "up", "folder", "broken", "circle", "fifo", "socket", "name"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_may_not_be_kept_stops_the_publication(
    store: Store, lease: Lease, draft: Draft, spoil: Callable[[Path], Any], told: str
) -> None:
    with contextlib.chdir(draft.out):  # a socket's path may have 107 bytes
        spoil(Path())
    with pytest.raises(StoreError, match=told):
        store.publish(draft, lease=lease)
    assert store.names() == [] and not (store.root / "a").exists()


def test_a_file_that_somebody_else_links_is_copied(store: Store, lease: Lease, draft: Draft, tmp_path: Path) -> None:
    mine = tmp_path / "my model"
    mine.write_text("precious")
    os.link(mine, draft.out / "model")
    manifest = store.publish(draft, lease=lease)
    mine.write_text("changed")
    assert mine.stat().st_mode & 0o200
    assert (store.folder(manifest) / "files" / "model").read_text() == "precious"


def test_the_runs_own_folder_never_leads_into_a_blob(store: Store, lease: Lease, draft: Draft) -> None:
    kept = store.quarantine(draft, lease=lease)
    draft.reports["report.html"].write_text("<p>written over</p>")
    assert (kept.folder / "report.html").read_text() == "<p>report</p>"


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
@pytest.mark.parametrize("symlinks", [True, False])
def test_without_hard_links(
    store: Store, publish: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch, code: int, symlinks: bool
) -> None:
    def refuse(*args: Any, **named: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    if not symlinks:
        monkeypatch.setattr(os, "symlink", lambda *args, **named: refuse())
    publish("a")
    publish("a", fingerprint="cd" * 32)
    linked = store.link("a@v1", "b")
    file = store.root / "b" / "v1" / "files" / "sub folder" / "pão.txt"
    assert file.is_symlink() == symlinks and file.read_text() == "pão\n"
    assert not symlinks or not file.readlink().is_absolute()
    assert not verify(store).damage and store.get("b") == linked


def test_out_on_another_disk_is_copied(store: Store, lease: Lease, make_draft: Any, other_disk: Path) -> None:
    (other_disk / "texts.jsonl").write_text("far away")
    draft = make_draft(lease, out=other_disk)
    manifest = store.publish(draft, lease=lease)
    assert (store.folder(manifest) / "files" / "texts.jsonl").read_text() == "far away"
    assert (other_disk / "texts.jsonl").exists()  # what lies outside a run's folder is not ours to remove


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    folder = shared / f"runner-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    (folder / "texts.jsonl").unlink()
    folder.rmdir()


def test_many_files_share_one_content(store: Store, publish: Callable[..., Manifest]) -> None:
    manifest = publish("a", files={f"{n:03}.txt": b"" for n in range(300)})
    assert len(manifest.files) == 300 and len({f.sha256 for f in manifest.files}) == 1
    assert not verify(store).damage
