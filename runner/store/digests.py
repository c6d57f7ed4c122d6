"""Digests of input files, remembered by what `stat` says, so that unchanged files are not read again."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

from runner.store.disk import digest_file

__all__ = ["Digests", "digest_file"]

RACY_NS = 2_000_000_000  # a file changed so shortly before it was read may change again within one tick of its clock
_CHUNK = 10_000  # paths in one query; SQLite takes up to 32,766
_BLOCK = 64  # files that a thread takes at once: one by one costs 80 µs each on top of 36 µs to hash a tiny file
_TABLE = """CREATE TABLE IF NOT EXISTS digests (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER,
inode INTEGER, sha256 TEXT) WITHOUT ROWID"""

Stamp = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode
Rows = dict[bytes, tuple[Stamp, str]]  # path -> its stamp when it was read, and sha256


class Digests:
    """sha256 of files, kept in an SQLite file at ``path``, or in memory only where that can't be written or read.

    Any number of processes may share it; a damaged one is made anew. Nothing is created before it is needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memory: Rows = {}  # all that was asked for and had settled

    def file(self, path: Path) -> str:
        """sha256 in hex of one file; for many use ``of``, which opens the cache once.

        Raises:
            OSError, ValueError: it can't be read.
        """
        return self.of([path])[0] or digest_file(path)

    def of(self, files: Sequence[Path]) -> list[str | None]:
        """sha256 in hex of each file, in order, None where it can't be read; new ones are read, several at once."""
        keys = [os.fsencode(file.absolute()) for file in files]
        stamps = {key: _stamp(key) for key in keys}
        self._recall([key for key in keys if key not in self._memory])
        found = {key: self._memory[key][1] for key, stamp in stamps.items() if self._is_known(key, stamp)}
        missing = [(key, stamp) for key, stamp in stamps.items() if stamp and key not in found]
        threads = os.cpu_count() or 1
        size = max(1, min(_BLOCK, len(missing) // (4 * threads)))  # few files are big ones, models: one by one
        blocks = [missing[start : start + size] for start in range(0, len(missing), size)]
        with ThreadPoolExecutor(threads) as pool:  # hashing lets go of the interpreter
            read = {key: row for block in pool.map(_read_all, blocks) for key, row in block if row}
        self._keep({key: (stamp, digest) for key, (stamp, digest, settled) in read.items() if settled})
        return [found.get(key) or (read[key][1] if key in read else None) for key in keys]

    def _is_known(self, key: bytes, stamp: Stamp | None) -> bool:
        return stamp is not None and key in self._memory and self._memory[key][0] == stamp

    def _recall(self, keys: Sequence[bytes]) -> None:
        if not keys or not self._path.exists():
            return
        # a damaged or unreadable cache is an empty one: `_keep` makes it anew where it can
        with suppress(sqlite3.Error), closing(_open(self._path, "ro")) as connection:
            for start in range(0, len(keys), _CHUNK):
                part = keys[start : start + _CHUNK]
                query = f"SELECT * FROM digests WHERE path IN ({','.join('?' * len(part))})"
                rows = connection.execute(query, part)
                self._memory |= {
                    path: ((size, mtime, ctime, inode), sha) for path, size, mtime, ctime, inode, sha in rows
                }

    def _keep(self, fresh: Rows) -> None:
        self._memory |= fresh
        if not fresh:
            return
        try:
            self._insert(fresh)
        except (OSError, sqlite3.OperationalError):
            return  # read-only, full, or busy for long: memory has it
        except sqlite3.DatabaseError:  # damaged
            with suppress(OSError, sqlite3.Error):
                self._path.unlink()
                self._insert(fresh)

    def _insert(self, rows: Rows) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_open(self._path, "rwc")) as connection, connection:
            connection.execute(_TABLE)
            flat = ((path, *stamp, sha) for path, (stamp, sha) in rows.items())
            connection.executemany("INSERT OR REPLACE INTO digests VALUES (?,?,?,?,?,?)", flat)


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", timeout=10, uri=True)


def _stamp(path: bytes) -> Stamp | None:
    try:
        stat = os.stat(path)  # noqa: PTH116 (100,000 Path objects take 0.3 s)
    except (OSError, ValueError):
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _read_all(block: Sequence[tuple[bytes, Stamp]]) -> list[tuple[bytes, tuple[Stamp, str, bool] | None]]:
    return [_read(path, stamp) for path, stamp in block]


def _read(path: bytes, stamp: Stamp) -> tuple[bytes, tuple[Stamp, str, bool] | None]:
    """(path, (stamp, sha256, whether the file had settled and stayed the same meanwhile)); None: it can't be read."""
    latest = time.time_ns() - RACY_NS
    try:
        digest = digest_file(Path(os.fsdecode(path)))
    except OSError:
        return path, None
    _, mtime, ctime, _ = stamp
    return path, (stamp, digest, max(mtime, ctime) < latest and _stamp(path) == stamp)
