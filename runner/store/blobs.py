"""Every file once, by its sha256: put in when absent, handed out as links."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from runner.schema.errors import StoreError
from runner.store.disk import LINKS_REFUSED, digest_file, make_folder, sync_file, sync_folder
from runner.store.owner import TEMP, unique

_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".ctm": "text/plain",
    ".flac": "audio/flac",
    ".gguf": "application/vnd.gguf",
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".ndjson": "application/x-ndjson",
    ".npy": "application/vnd.numpy",
    ".onnx": "application/vnd.onnx",
    ".parquet": "application/vnd.apache.parquet",
    ".safetensors": "application/vnd.safetensors",
    ".srt": "application/x-subrip",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".vtt": "text/vtt",
    ".wav": "audio/wav",
    ".yaml": "application/yaml",
}


def media_type(path: str) -> str:
    """Media type by suffix: our own table, because the system's differs from machine to machine."""
    return _MEDIA_TYPES.get(Path(path).suffix.lower(), "application/octet-stream")


def blob_path(blobs: Path, digest: str) -> Path:
    """Place of the blob with this sha256."""
    return blobs / "sha256" / digest[:2] / digest


def put(blobs: Path, source: Path, *, share: bool) -> tuple[str, int]:
    """Make ``source`` a blob; gives its sha256 and size in bytes.

    With ``share`` the file is linked and locked, not copied, where the file system allows and nobody else links it. An
    existing blob is hashed again before it is trusted, so that publishing anew heals a damaged one.

    Raises:
        StoreError: the file changed while it was read.
    """
    before = source.stat()
    digest = digest_file(source)
    after = source.stat()
    if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
        raise StoreError(f"{str(source)!r} changed while it was being published; stop what writes it and apply again")
    blob = blob_path(blobs, digest)
    make_folder(blob.parent)
    if _is_sound(blob, digest, after):
        _touch(blob)
    elif not share or after.st_nlink > 1 or blob.exists() or not _link(source, blob):
        # what somebody else links too (an input, say) must not become ours: they may write to it, and we would lock it
        _copy(source, blob)
    sync_folder(blob.parent)
    return digest, after.st_size


def _is_sound(blob: Path, digest: str, source: os.stat_result) -> bool:
    if not blob.exists():
        return False
    stat = blob.stat()
    same = (stat.st_dev, stat.st_ino) == (source.st_dev, source.st_ino)
    return same or (stat.st_size == source.st_size and digest_file(blob) == digest)


def _touch(blob: Path) -> None:
    # gc leaves young blobs alone; a blob of another user can't be touched, its links protect it
    with contextlib.suppress(PermissionError):
        os.utime(blob)


def _link(source: Path, blob: Path) -> bool:
    source.chmod(0o444)
    sync_file(source)
    try:
        os.link(source, blob)
    except FileExistsError:
        return True  # another writer was quicker with the same content
    except OSError as error:
        if error.errno in LINKS_REFUSED:
            return False
        raise
    return True


def _copy(source: Path, blob: Path) -> None:
    temp = blob.parent / unique(TEMP)
    try:
        shutil.copyfile(source, temp)
        if digest_file(temp) != blob.name:
            raise StoreError(f"{str(source)!r} changed while it was being published; apply again")
        temp.chmod(0o444)
        sync_file(temp)
        temp.replace(blob)
    finally:
        temp.unlink(missing_ok=True)


def hand_out(content: Path, target: Path) -> None:
    """Make ``target`` show ``content`` (a blob): a hard link, else a relative symbolic link, else a copy."""
    try:
        os.link(content, target)
        return
    except OSError as error:
        if error.errno not in LINKS_REFUSED:
            raise
    try:
        target.symlink_to(os.path.relpath(content, target.parent))
    except OSError as error:
        if error.errno not in LINKS_REFUSED:
            raise
        shutil.copyfile(content, target)
        sync_file(target)


def tree(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below ``folder`` as (path with ``/``, the real file), sorted. Links inside are followed.

    Raises:
        StoreError: a link that leads outside or in a circle, a special file, a name that is not UTF-8.
    """
    if folder.is_dir():
        yield from _walk(folder, "", Path(os.path.realpath(folder)), ())


def _walk(folder: Path, prefix: str, top: Path, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    here = Path(os.path.realpath(folder))
    if here in above:
        raise StoreError(f"{str(folder)!r} is a link that leads in a circle; remove it or put the files there")
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        path, real = prefix + entry.name, Path(os.path.realpath(entry.path))
        _check_entry(entry, real, top)
        if real.is_dir():
            yield from _walk(Path(entry.path), path + "/", top, (*above, here))
        else:
            yield path, real


def _check_entry(entry: os.DirEntry[str], real: Path, top: Path) -> None:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise StoreError(f"the file name {os.fsencode(entry.path)!r} is not UTF-8; rename it") from None
    if not real.is_relative_to(top):
        raise StoreError(f"{entry.path!r} is a link to {str(real)!r}, outside the run's folder; put a copy there")
    if not real.is_dir() and not real.is_file():
        raise StoreError(f"{entry.path!r} is neither a file nor a folder and can't be kept; remove it")
