"""Carry out one change of a store; with a number, die at that step of it. Run by test_kill.py in a process of its own.

A step is whatever changes the disk: each opening to write, link, rename, removal, change of mode and fsync below the
store.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner.store.leases import Lease
from runner.store.local import Store, open_store
from runner.store.publish import Draft

EVENTS = {"open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.chmod", "os.rmdir", "os.symlink", "os.utime"}


def die_at(root: Path, step: int) -> None:
    """Die without a word at the ``step``-th step from now."""
    count = 0
    real = os.fsync

    def tick() -> None:
        nonlocal count
        count += 1
        if count == step:
            os._exit(9)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        reads = event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event in EVENTS and not reads and any(str(root) in str(a) for a in args):
            tick()

    def fsync(handle: int) -> None:
        tick()
        real(handle)

    os.fsync = fsync
    sys.addaudithook(hook)


def fingerprint_of(n: int) -> str:
    """A fingerprint for each ``n``, its beginning too."""
    return hashlib.sha256(str(n).encode()).hexdigest()


def draft(store: Store, lease: Lease, n: int) -> Draft:
    """A run's output that differs for each ``n``."""
    name, fingerprint = lease.name, fingerprint_of(n)
    run = store.start_run(name, kind="asr-transcribe", fingerprint=fingerprint, executor="inline", lease=lease)
    folder = store.run_folder(run.id)
    (folder / "out" / "sub").mkdir()
    (folder / "out" / "texts.jsonl").write_text(f"text {n}\n")
    (folder / "out" / "sub" / "same.txt").write_text("the same in all versions\n")
    (folder / "records" / "timing.jsonl").write_text(f"{n}\n")
    return Draft(
        name=name,
        kind="asr-transcribe",
        fingerprint=fingerprint,
        spec={"n": n},
        inputs=(),
        metrics={"n": n},
        gates=(),
        ledger=(),
        environment={},
        code={},
        run={"id": run.id},
        out=folder / "out",
        records=folder / "records",
        reports={},
    )


def publish(store: Store, n: int) -> None:
    """Publish a new version of ``a``."""
    with store.lease("a") as lease:
        store.publish(draft(store, lease, n), lease=lease)


def release(store: Store, n: int) -> None:
    """Quarantine a draft of ``a``, again, and publish it from there."""
    with store.lease("a") as lease:
        store.quarantine(draft(store, lease, n), lease=lease)
        kept = store.quarantine(draft(store, lease, n), lease=lease)
        store.release(kept, spec={"n": n}, gates=(), reports={}, lease=lease)


def link(store: Store, n: int) -> None:
    """Link another artifact as a new version of ``a``."""
    store.link("other@v1", "a")


CHANGES: dict[str, Callable[[Store, int], None]] = {"publish": publish, "release": release, "link": link}


def main(root: str, change: str, first: str, step: str) -> None:
    """With ``step`` 0: change after change until killed."""
    store, n = open_store(root), int(first)
    if step != "0":
        die_at(store.root, int(step))
        CHANGES[change](store, n)
        return
    print("ready", flush=True)
    while True:
        n += 1
        CHANGES[change](store, n)


if __name__ == "__main__":
    main(*sys.argv[1:])
