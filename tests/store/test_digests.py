"""The cache of input digests: trusted only when nothing can have changed, and never in the way."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sqlite3
import time
from pathlib import Path

import pytest

from runner.store import digests as module
from runner.store.digests import Digests, digest_file


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "store" / ".cache" / "digests.sqlite"


def _settled(path: Path, content: bytes, *, age_s: float = 60) -> Path:
    path.write_bytes(content)
    past = time.time_ns() - int(age_s * 1e9)
    os.utime(path, ns=(past, past))
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files that were really read. Files settle at once: ctime can't be set back."""
    names: list[str] = []

    def counted(path: Path) -> str:
        names.append(path.name)
        return digest_file(path)

    monkeypatch.setattr(module, "digest_file", counted)
    monkeypatch.setattr(module, "RACY_NS", 0)
    time.sleep(0.02)
    return names


def test_a_file_is_read_once(tmp_path: Path, cache: Path, read: list[str]) -> None:
    files = [_settled(tmp_path / f"olá {n}.txt", b"x" * n) for n in range(5)]
    time.sleep(0.02)
    want = [hashlib.sha256(b"x" * n).hexdigest() for n in range(5)]
    assert not cache.exists()
    assert Digests(cache).of(files) == want == Digests(cache).of(files)
    assert sorted(read) == [f.name for f in files] and cache.exists()
    assert Digests(cache).of([*files, files[0]]) == [*want, want[0]]


@pytest.mark.parametrize("change", ["content", "replaced", "restored time"])
def test_a_changed_file_is_read_again(tmp_path: Path, cache: Path, read: list[str], change: str) -> None:
    file = _settled(tmp_path / "a", b"one")
    time.sleep(0.02)
    Digests(cache).file(file)
    before = file.stat()
    if change == "replaced":
        file.unlink()
    file.write_bytes(b"two")
    if change == "restored time":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Digests(cache).file(file) == hashlib.sha256(b"two").hexdigest()
    assert read == ["a", "a"]


def test_a_file_changed_just_now_is_not_trusted(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    assert Digests(cache).file(file) and not cache.exists()
    future = time.time_ns() + 3600 * 10**9
    os.utime(file, ns=(future, future))
    assert Digests(cache).file(file) and not cache.exists()


def test_what_cannot_be_read_has_no_digest(tmp_path: Path, cache: Path) -> None:
    digests = Digests(cache)
    assert digests.of([tmp_path / "none", tmp_path, tmp_path / "nul\0"]) == [None, None, None]
    with pytest.raises(FileNotFoundError):
        digests.file(tmp_path / "none")


@pytest.mark.parametrize("content", [b"no database" * 1000, b"", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, cache: Path, read: list[str], content: bytes) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content)
    file = _settled(tmp_path / "a", b"one")
    time.sleep(0.02)
    want = hashlib.sha256(b"one").hexdigest()
    assert Digests(cache).file(file) == want == Digests(cache).file(file)
    assert read == ["a"]


def test_a_cache_of_another_shape_does_no_harm(tmp_path: Path, cache: Path, read: list[str]) -> None:
    cache.parent.mkdir(parents=True)
    with sqlite3.connect(cache) as connection:
        connection.execute("CREATE TABLE digests (path TEXT)")
    connection.close()
    file = _settled(tmp_path / "a", b"one")
    assert Digests(cache).file(file) == hashlib.sha256(b"one").hexdigest()


def test_where_nothing_can_be_written_memory_serves(tmp_path: Path, read: list[str]) -> None:
    (tmp_path / "file").touch()
    digests = Digests(tmp_path / "file" / "digests.sqlite")
    file = _settled(tmp_path / "a", b"one")
    time.sleep(0.02)
    assert digests.file(file) == digests.file(file) == hashlib.sha256(b"one").hexdigest()
    assert read == ["a"]


def _work(cache: Path, folder: Path) -> None:
    for _ in range(5):
        for file in folder.iterdir():
            assert Digests(cache).file(file) == digest_file(file)


def test_processes_share_it(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for n in range(10):
        _settled(folder / str(n), b"x" * n)
    time.sleep(2.1)  # until the files have settled
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_work, args=(cache, folder)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0, 0, 0]
    with sqlite3.connect(cache) as connection:
        assert connection.execute("SELECT count(*) FROM digests").fetchone() == (10,)
    connection.close()
