"""Who writes a name. A lease is a file `.leases/<name>.<n>.json`; a new holder makes the next number.

The next number is made by put-if-absent, so of many takers one wins, and it is the fencing token: whoever finds a
higher number than its own has been replaced. A released lease stays as an empty file, so that numbers do not begin
anew; gc removes old ones. The heartbeat is the file's time. Neither needs space, so that a full disk frees the name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from runner.schema.errors import ConflictError, StoreError
from runner.store.disk import make_folder, put_if_absent, storing, write_atomic
from runner.store.owner import Owner, me

TTL_S = 60.0  # a holder on another machine that has not been heard of for so long is taken to be dead
_FILE = re.compile(r"([a-z0-9][a-z0-9-]{0,62})\.([1-9][0-9]{0,17})\.json")


@dataclass(frozen=True, kw_only=True)
class Holder:
    """One lease as it lies on disk."""

    name: str
    number: int
    token: str
    owner: Owner
    run: str
    since: float  # seconds since the epoch
    released: bool
    expires: float  # seconds since the epoch: last heartbeat + TTL_S

    @property
    def live(self) -> bool:
        """Whether somebody holds it. On this machine only the process decides, so that no jump of the clock does."""
        if self.released:
            return False
        state = self.owner.state()
        return state == "alive" or (state == "elsewhere" and time.time() < self.expires)

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        run = f" for run {self.run!r}" if self.run else ""
        return f"process {self.owner.pid} of {self.owner.user!r} on {self.owner.host!r}{run} since {since}"


class Lease:
    """A name held by this process until ``release`` or the end of the ``with`` block."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.name, self.token, self.number = holder.name, holder.token, holder.number
        self._path, self._holder = path, holder
        self._lost: ConflictError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{holder.name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise ConflictError when somebody else took the name over; call it before anything becomes visible."""
        if self._lost:
            raise self._lost
        after = [h for h in holders(self._path.parent, self.name) if h.number > self.number]
        if not after and self._is_mine():
            return
        by = f"taken over by {after[-1]}" if after else "its file was removed"
        self._lost = ConflictError(f"the lease on {self.name!r} was lost: {by}; nothing was published, apply again")
        raise self._lost

    def _is_mine(self) -> bool:
        try:
            return _read(self._path, self.name, self.number).token == self.token
        except FileNotFoundError:
            return False

    def note_run(self, run: str) -> None:
        """Say which run it is for, for people who meet the conflict."""
        self.check()
        self._holder = replace(self._holder, run=run)
        with storing("write the lease", self._path):
            write_atomic(self._path, _dump(self._holder))

    def release(self) -> None:
        """Give the name back; a lost lease only ceases to count, a released one stays so."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        with storing("release the lease", self._path):
            if self._is_mine():
                os.truncate(self._path, 0)

    def _beat(self) -> None:
        while not self._stop.wait(TTL_S / 4):
            try:
                self.check()
                os.utime(self._path)
            except ConflictError:
                return  # kept in self._lost: the next check in the main thread raises it
            except OSError:
                continue  # a network disk may be away for a moment; if it stays away, others take over and check tells

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except StoreError:
            if error is None:
                raise  # otherwise what went wrong before is what people must read; this process's end frees the name


def acquire(folder: Path, name: str, *, run: str = "") -> Lease:
    """Hold ``name`` or say who does.

    Raises:
        ConflictError: a live process holds it.
        StoreError: the store can't be written.
    """
    with storing("take the lease", folder):
        make_folder(folder)
        while True:
            before = holders(folder, name)
            _refuse(next((h for h in before if h.live), None))
            mine = _new(name, before[-1].number + 1 if before else 1, run)
            path = folder / f"{name}.{mine.number}.json"
            if put_if_absent(path, _dump(mine)):
                if _stands(folder, mine):
                    break
                path.unlink()
        for old in before[:-1]:  # the last one stays: a listing that overtakes a change of holders meets it
            (folder / f"{name}.{old.number}.json").unlink(missing_ok=True)
    return Lease(path, mine)


def _stands(folder: Path, mine: Holder) -> bool:
    # a listing made while others came and went (or gc cleaned up) may have shown nothing, and the number is too low
    others = (h for h in holders(folder, mine.name) if h.number != mine.number)
    return not any(h.number > mine.number or h.live for h in others)


def holders(folder: Path, name: str | None = None) -> list[Holder]:
    """Every lease file of ``name`` (None: of all names), live or not, lowest number first."""
    return sorted(_read_all(folder, name), key=lambda h: (h.name, h.number))


def _read_all(folder: Path, name: str | None) -> Iterator[Holder]:
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        found = _FILE.fullmatch(file.name)
        if found and name in {None, found[1]}:
            with contextlib.suppress(FileNotFoundError):  # released and cleaned meanwhile
                yield _read(file, found[1], int(found[2]))


def _read(path: Path, name: str, number: int) -> Holder:
    seen = path.stat().st_mtime
    text = path.read_bytes()
    try:
        data: dict[str, Any] = json.loads(text)
        owner, token, run, since = Owner(**data["owner"]), data["token"], data["run"], data["since"]
    except (ValueError, TypeError, KeyError):  # released, damaged, or half-written where there are no hard links
        owner = Owner(host="an unknown machine", boot="?", pid=0, start="", user="an unknown user")
        token, run, since = "", "", seen
    return Holder(
        name=name,
        number=number,
        token=token,
        owner=owner,
        run=run,
        since=since,
        released=not text,
        expires=seen + TTL_S,
    )


def _new(name: str, number: int, run: str) -> Holder:
    now, token = time.time(), secrets.token_hex(16)
    return Holder(
        name=name, number=number, token=token, owner=me(), run=run, since=now, released=False, expires=now + TTL_S
    )


def _refuse(holder: Holder | None) -> None:
    if holder:
        raise ConflictError(
            f"{holder.name!r} is being written by {holder}; wait until it is done or stop it with "
            f"`runner cancel {holder.run or holder.name}`"
        )


def _dump(holder: Holder) -> bytes:
    data = {"token": holder.token, "owner": asdict(holder.owner), "run": holder.run, "since": holder.since}
    return json.dumps(data, indent=1).encode() + b"\n"
