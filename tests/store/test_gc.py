"""What can go goes, in two steps; what somebody needs stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.store.gc import Collected, collect
from runner.store.leases import TTL_S
from runner.store.local import Store
from runner.store.manifest import Manifest
from runner.store.owner import unique
from runner.store.verify import verify

Publish = Callable[..., Manifest]
OTHER, THIRD = "cd" * 32, "ef" * 32


def _dead(prefix: str) -> str:
    """A temporary name whose maker is gone."""
    code = f"from runner.store.owner import unique; print(unique({prefix!r}))"
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip()


def _paths(found: Collected) -> set[str]:
    """What can go, but for leases given back, which are there after every publication."""
    return {g.path for g in found.garbage if not g.why.startswith("a lease")}


def _empty(store: Store) -> Collected:
    return collect(store, delete=True, grace_s=0)


def test_nothing_is_done_without_delete(store: Store, publish: Publish) -> None:
    assert collect(store).garbage == () and not store.root.exists()
    publish("a")
    (store.root / "a" / _dead(".staging-")).mkdir()
    before = sorted(store.root.rglob("*"))
    assert collect(store, grace_s=0).garbage and sorted(store.root.rglob("*")) == before


def test_what_cut_off_writes_left_goes(store: Store, publish: Publish) -> None:
    publish("a")
    name = _dead(".tmp-")
    for place in (".", "a", ".leases", ".blobs/sha256/ab", ".runs/a.abababab.1"):
        (store.root / place).mkdir(exist_ok=True)
        (store.root / place / name).write_text("x" * 1000)
    staging = store.root / "a" / _dead(".staging-")
    (staging / "files").mkdir(parents=True)
    (staging / "files" / "half").write_text("x" * 1000)
    found = _empty(store)
    assert {p for p in _paths(found) if ".tmp-" in p or ".staging-" in p} == {
        name,
        f"a/{name}",
        f".leases/{name}",
        f".blobs/sha256/ab/{name}",
        f".runs/a.abababab.1/{name}",
        f"a/{staging.name}",
    }
    assert found.freed == 6000 and not [p for p in store.root.rglob("*") if name in p.name or p == staging]
    assert store.get("a") and not verify(store).damage and not collect(store).garbage


def test_what_a_living_process_writes_stays(store: Store, publish: Publish) -> None:
    publish("a")
    mine = [store.root / "a" / unique(".staging-"), store.root / ".blobs" / unique(".tmp-")]
    foreign = store.root / "a" / ".staging-00000000.1.1.abcd"
    for path in (*mine, foreign):
        path.mkdir()
    _empty(store)
    assert all(path.exists() for path in mine)
    assert not foreign.exists()  # made on another machine: only time can tell, and no grace was given


def test_the_grace_period_counts_for_other_machines_and_for_the_trash(store: Store, publish: Publish) -> None:
    publish("a")
    foreign = store.root / "a" / ".staging-00000000.1.1.abcd"
    foreign.mkdir()
    left = store.root / _dead(".tmp-")
    left.write_text("x" * 1000)
    found = collect(store, delete=True, grace_s=3600)
    assert foreign.exists() and not left.exists()
    assert (found.freed, found.waiting) == (0, 1000)
    grave = next(store.layout.trash.iterdir())
    assert (grave / left.name).read_text() == "x" * 1000
    aged = grave.with_name(f"{int(time.time()) - 3601}-old")
    grave.rename(aged)
    found = collect(store, delete=True, grace_s=3600)
    assert (found.freed, found.waiting) == (1000, 0) and not aged.exists()


def test_finished_runs_lose_their_scratch_and_unfinished_keep_it(store: Store, publish: Publish) -> None:
    publish("a")
    with store.lease("b") as lease:
        run = store.start_run("b", kind="k", fingerprint=OTHER, executor="inline", lease=lease)
    for done in ("a.abababab.1", run.id):
        (store.run_folder(done) / "checkpoints").mkdir(exist_ok=True)
        (store.run_folder(done) / "checkpoints" / "one").write_text("x" * 500)
    found = _empty(store)
    assert _paths(found) == {".runs/a.abababab.1/checkpoints"} and found.freed == 500
    assert (store.run_folder(run.id) / "checkpoints" / "one").exists()
    assert (store.run_folder("a.abababab.1") / "run.json").exists()


def test_blobs_without_an_artifact_go(store: Store, publish: Publish) -> None:
    manifest = publish("a", files={"big": b"x" * 5000})
    kept = publish("b", files={"other": b"y" * 3000})
    (store.root / "a").rename(store.root.parent / "gone")
    assert collect(store).freed == 0  # the folder that was moved away still links them
    for path in sorted((store.root.parent / "gone").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert collect(store).freed == 5000
    assert _empty(store).freed == 5000
    assert not (store.root / ".blobs/sha256" / manifest.files[0].sha256[:2] / manifest.files[0].sha256).exists()
    assert store.get("b") == kept and not verify(store).damage


def test_old_versions_go_when_asked(store: Store, publish: Publish) -> None:
    publish("a", files={"one": b"1" * 1000, "same": b"s" * 1000})
    publish("a", fingerprint=OTHER, files={"two": b"2" * 1000, "same": b"s" * 1000})
    publish("a", fingerprint=THIRD, files={"three": b"3" * 1000})
    inputs = [{"field": "model", "ref": "artifact:a@v2#two", "digest": f"fingerprint:{OTHER}"}]
    publish("b", fingerprint=THIRD, inputs=inputs)
    assert all(p.startswith(".runs/") for p in _paths(collect(store)))
    found = collect(store, keep_versions=1)
    assert "a/v1" in _paths(found) and "a/v2" not in _paths(found)  # b was made from it
    store.point_latest("a", "v1")
    assert "a/v1" not in _paths(collect(store, keep_versions=1))
    store.point_latest("a", "v3")
    planned = collect(store, keep_versions=1)
    done = collect(store, delete=True, grace_s=0, keep_versions=1)
    assert planned.freed == done.freed and 2000 < done.freed < 3000  # "one" and the manifest; "same" is v2's too
    assert store.versions("a") == ["v2", "v3"] and not verify(store).damage
    assert publish("a").version == "v4" and store.by_fingerprint("ab" * 32, "z") == "a@v4"


def test_nothing_of_a_held_name_is_touched(store: Store, publish: Publish) -> None:
    publish("a")
    publish("a", fingerprint=OTHER)
    staging = store.root / "a" / unique(".staging-")
    staging.mkdir()
    with store.lease("a"):
        found = collect(store, delete=True, grace_s=0, keep_versions=1)
        assert not any(g.path.startswith(("a/", ".runs/a.", ".leases/a.")) for g in found.garbage)
    assert store.versions("a") == ["v1", "v2"] and staging.exists()
    assert "a/v1" in _paths(collect(store, keep_versions=1))


def test_a_blob_taken_into_use_meanwhile_stays(store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    """gc has found a blob to be free; then, before it goes, somebody publishes the same content."""
    from runner.store import gc

    blob = store.root / ".blobs/sha256/2d" / ("2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881")
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"x")
    os.utime(blob, (1, 1))
    time.sleep(0.02)
    real = gc._move

    def late(*args: Any, **named: Any) -> Any:
        publish("a", files={"x": b"x"})
        return real(*args, **named)

    monkeypatch.setattr(gc, "_move", late)
    assert not [g for g in _empty(store).garbage if g.path.startswith(".blobs")]
    assert blob.exists() and store.get("a") and not verify(store).damage


def test_a_quarantine_that_was_published_goes(store: Store, make_draft: Any, publish: Publish) -> None:
    with store.lease("a") as lease:
        kept = store.quarantine(make_draft(lease), lease=lease)
    assert not _paths(_empty(store)) and kept.folder.exists()
    publish("a")
    _empty(store)
    assert not kept.folder.exists() and store.get("a") and not verify(store).damage


def test_old_leases_that_nobody_holds_go(store: Store) -> None:
    with store.lease("a"):
        pass
    store.lease("b")
    _empty(store)
    assert [p.name for p in store.layout.leases.iterdir()] == ["b.1.json"] and TTL_S < 3600


def test_two_collections_at_once(store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.store import gc

    publish("a")
    (store.root / _dead(".tmp-")).write_text("x")
    real = gc._move

    def second(*args: Any, **named: Any) -> Any:
        monkeypatch.setattr(gc, "_move", real)
        _empty(store)
        return real(*args, **named)

    monkeypatch.setattr(gc, "_move", second)
    assert not _paths(_empty(store))


def test_links_in_the_trash_are_not_followed(store: Store, publish: Publish, tmp_path: Path) -> None:
    publish("a")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").touch()
    staging = store.root / "a" / _dead(".staging-")
    staging.mkdir()
    (staging / "link").symlink_to(tmp_path / "mine")
    _empty(store)
    assert (tmp_path / "mine" / "precious").exists() and not staging.exists()
