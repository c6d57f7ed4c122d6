"""Digests of input files, remembered by what `stat` says, so that unchanged files are not read again."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from runner.store.disk import digest_file

__all__ = ["Digests", "digest_file"]

RACY_NS = 2_000_000_000  # a file changed so shortly before it was read may change again within one tick of its clock
_CHUNK = 10_000  # paths in one query; SQLite takes up to 32,766
_TABLE = """CREATE TABLE IF NOT EXISTS digests (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER,
inode INTEGER, sha256 TEXT) WITHOUT ROWID"""

Stamp = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode


class Digests:
    """sha256 of files, kept in an SQLite file at ``path``, or in memory where that can't be written or read.

    Any number of processes may share it; a damaged one is made anew. Nothing is created before it is needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memory: dict[bytes, tuple[Stamp, str]] = {}  # what could not be written

    def of(self, files: Sequence[Path]) -> list[str]:
        """sha256 in hex of each file, in order; those not known are read, several at once.

        Raises:
            OSError: a file can't be read.
        """
        keys = [os.fsencode(file.absolute()) for file in files]
        stamps = [_stamp(key) for key in keys]
        known = self._known(keys)
        missing = [i for i, key in enumerate(keys) if known.get(key, (None,))[0] != stamps[i]]
        fresh = self._read(files, stamps, missing)
        self._keep({keys[i]: (stamps[i], digest) for i, (digest, settled) in fresh.items() if settled})
        return [fresh[i][0] if i in fresh else known[key][1] for i, key in enumerate(keys)]

    def _read(
        self, files: Sequence[Path], stamps: Sequence[Stamp], missing: Sequence[int]
    ) -> dict[int, tuple[str, bool]]:
        """position -> (digest, whether the file had settled and did not change meanwhile)."""

        def read(i: int) -> tuple[str, bool]:
            latest = time.time_ns() - RACY_NS
            digest = digest_file(files[i])
            _, mtime, ctime, _ = stamps[i]
            return digest, max(mtime, ctime) < latest and _stamp(os.fsencode(files[i])) == stamps[i]

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets go of the interpreter
            return dict(zip(missing, pool.map(read, missing), strict=True))

    def _known(self, keys: Sequence[bytes]) -> dict[bytes, tuple[Stamp, str]]:
        found = dict(self._memory)
        if self._path.exists():
            try:
                found |= self._select(keys)
            except sqlite3.Error:
                return found  # damaged or not readable: `_keep` makes it anew where it can
        return found

    def _select(self, keys: Sequence[bytes]) -> dict[bytes, tuple[Stamp, str]]:
        found: dict[bytes, tuple[Stamp, str]] = {}
        uri = f"{self._path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, timeout=10, uri=True)
        try:
            for start in range(0, len(keys), _CHUNK):
                part = keys[start : start + _CHUNK]
                marks = ",".join("?" * len(part))
                rows = connection.execute(f"SELECT * FROM digests WHERE path IN ({marks})", part)
                found |= {
                    bytes(path): ((size, mtime, ctime, inode), sha) for path, size, mtime, ctime, inode, sha in rows
                }
        finally:
            connection.close()
        return found

    def _keep(self, fresh: dict[bytes, tuple[Stamp, str]]) -> None:
        if not fresh:
            return
        try:
            self._insert(fresh.items())
        except sqlite3.OperationalError:  # read-only, full, or another process holds it for long
            self._memory |= fresh
        except sqlite3.DatabaseError:  # damaged: make it anew
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            with suppress(sqlite3.Error):
                self._insert(fresh.items())
            self._memory |= fresh
        except OSError:  # its folder can't be made
            self._memory |= fresh

    def _insert(self, rows: Iterable[tuple[bytes, tuple[Stamp, str]]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=10)
        try:
            with connection:
                connection.execute(_TABLE)
                flat = ((path, *stamp, sha) for path, (stamp, sha) in rows)
                connection.executemany("INSERT OR REPLACE INTO digests VALUES (?,?,?,?,?,?)", flat)
        finally:
            connection.close()


def _stamp(path: bytes) -> Stamp:
    stat = os.stat(path)  # noqa: PTH116 (100,000 Path objects take 0.3 s)
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
