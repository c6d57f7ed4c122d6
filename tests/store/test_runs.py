"""Runs go on where they were, and begin anew after success."""

from __future__ import annotations

from typing import Any

import pytest

from runner.schema.errors import StoreError
from runner.store.leases import Lease
from runner.store.local import Store
from runner.store.runs import Run

FINGERPRINT = "ab" * 32


def _begin(store: Store, lease: Lease, fingerprint: str = FINGERPRINT) -> Run:
    return store.start_run("a", kind="asr-transcribe", fingerprint=fingerprint, executor="inline", lease=lease)


def test_a_run_that_did_not_succeed_goes_on(store: Store) -> None:
    with store.lease("a") as lease:
        first = _begin(store, lease)
        folder = store.run_folder(first.id)
        assert (first.id, first.attempts) == ("a.abababab.1", 1)
        (folder / "checkpoints" / "half").write_text("kept")
        (folder / "out" / "half").write_text("gone")
        (folder / "records" / "half").write_text("gone")
        again = _begin(store, lease)
        holder = store.holder("a")
        assert holder and holder.run == first.id
    assert (again.id, again.attempts, again.created) == (first.id, 2, first.created)
    assert [p.name for p in sorted(folder.iterdir())] == ["checkpoints", "out", "records", "run.json"]
    assert (folder / "checkpoints" / "half").exists()
    assert not list((folder / "out").iterdir()) and not list((folder / "records").iterdir())
    assert store.runs() == [again]


def test_after_success_a_new_run_begins(store: Store, publish: Any) -> None:
    publish("a")
    with store.lease("a") as lease:
        assert _begin(store, lease).id == "a.abababab.2"
        assert _begin(store, lease).attempts == 2
        assert _begin(store, lease, "cd" * 32).id == "a.cdcdcdcd.1"
    assert [r.id for r in store.runs()] == ["a.abababab.1", "a.abababab.2", "a.cdcdcdcd.1"]


def test_fingerprints_that_begin_alike_are_other_runs(store: Store) -> None:
    with store.lease("a") as lease:
        _begin(store, lease)
        assert _begin(store, lease, "ab" * 31 + "00").id == "a.abababab.2"


@pytest.mark.parametrize("text", [None, "", "{", '{"id": 3}'])
def test_a_run_cut_off_at_its_beginning_begins_again(store: Store, text: str | None) -> None:
    folder = store.layout.runs / "a.abababab.1"
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "run.json").write_text(text)
    assert store.runs() == []
    with store.lease("a") as lease:
        run = _begin(store, lease)
    assert (run.id, run.attempts) == ("a.abababab.1", 1) and store.runs() == [run]


def test_out_may_not_be_a_link(store: Store, tmp_path: Any) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").touch()
    with store.lease("a") as lease:
        run = _begin(store, lease)
        out = store.run_folder(run.id) / "out"
        out.rmdir()
        out.symlink_to(tmp_path / "mine")
        with pytest.raises(StoreError, match="is a link; remove it"):
            _begin(store, lease)
    assert (tmp_path / "mine" / "precious").exists()
