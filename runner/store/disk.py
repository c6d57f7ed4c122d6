"""Writing so that a kill or a power cut leaves the old file or the new one, and saying plainly what went wrong."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.schema.errors import StoreError
from runner.store.owner import TEMP, unique

# what a file system answers that has no hard links, or no more of them for this file
LINKS_REFUSED = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}

_ADVICE = {
    errno.ENOSPC: "free some space (`runner artifacts gc` shows what can go) and apply again",
    errno.EDQUOT: "free some space (`runner artifacts gc` shows what can go) and apply again",
    errno.EFBIG: "raise the limit on file sizes (`ulimit -f`) and apply again",
    errno.EROFS: "mount it writable or choose another store with --store",
    errno.EACCES: "allow it for this user or choose another store with --store",
    errno.EPERM: "allow it for this user or choose another store with --store",
    errno.ENAMETOOLONG: "use shorter file names",
    errno.ENOTDIR: "move the file away that stands where a folder should",
}


@contextmanager
def storing(doing: str, path: Path) -> Iterator[None]:
    """Turn a refusal of the operating system into a StoreError that names the place and what to do.

    The OSError stays its ``__cause__``, so that a full disk can be told from other damage.
    """
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else str(path)
        advice = _ADVICE.get(error.errno or 0, "check the disk and apply again")
        reason = error.strerror or str(error)
        raise StoreError(f"can't {doing}: {where!r}: {reason}; {advice}") from error


def write_atomic(path: Path, data: bytes) -> None:
    """Replace ``path`` at one instant, durably."""
    temp = _write_temp(path.parent, data)
    try:
        temp.replace(path)
    except OSError:
        temp.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def put_if_absent(path: Path, data: bytes) -> bool:
    """Make ``path`` with all of ``data`` at one instant; False when it was there already.

    Where there are no hard links the name still appears only once, but a reader may catch it before its content.
    """
    temp = _write_temp(path.parent, data)
    try:
        os.link(temp, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in LINKS_REFUSED:
            raise
        return _put_plain(path, data)
    finally:
        temp.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def _put_plain(path: Path, data: bytes) -> bool:
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    sync_folder(path.parent)
    return True


def _write_temp(folder: Path, data: bytes) -> Path:
    temp = folder / unique(TEMP)
    try:
        with temp.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temp.unlink(missing_ok=True)
        raise
    return temp


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    sync_file(folder)


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and what is above it, durably; it may exist."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):  # another writer was quicker
        folder.mkdir()
    sync_folder(folder.parent)


def trash_entry() -> str:
    """Name of a new folder below `.trash/`: the time in seconds and a token."""
    return f"{int(time.time())}-{secrets.token_hex(4)}"


def discard(folder: Path, trash: Path) -> None:
    """Take a folder away at one instant and then delete it; a kill in between leaves the rest to gc."""
    grave = trash / trash_entry()
    make_folder(trash)
    folder.rename(grave)
    sync_folder(folder.parent)
    shutil.rmtree(grave)


def digest_file(path: Path) -> str:
    """sha256 of a file's content in 64 hex digits, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
