"""A table out of an artifact names recordings: their content decides, and decides the same before and after a run."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from runner.execution.inputs import Inputs
from runner.plan.inputs import Pinner
from runner.plan.step import Step
from runner.plan.text import lines
from runner.schema.errors import ConflictError
from runner.schema.kinds import job_class
from runner.store.digests import Digests
from tests.plan.house import House


def _down(house: House, reference: str = "artifact:up#transcripts.jsonl", root: str | None = ".") -> dict[str, Any]:
    return house.spec("down", data={"manifest": reference, "root": root})


def _inputs(house: House, step: Step) -> Inputs:
    return Inputs(step=step, spec=job_class(step.kind).model_validate(step.spec), store=house.store)


def _publish(house: House, step: Step) -> None:
    """Publish as an apply does: with the listings that the check before it gives."""
    listings = _inputs(house, step).check(Pinner(Digests(house.store.layout.digests)))
    house.publish(step, listings=listings)


def _alone(house: House, reference: str = "artifact:up#transcripts.jsonl", root: str | None = ".") -> Step:
    (step,) = house.plan(_down(house, reference, root)).steps
    return step


@pytest.mark.parametrize("reference", ["artifact:up#transcripts.jsonl", "artifact:up@v1#transcripts.jsonl"])
def test_recordings_that_changed_are_seen(house: House, reference: str) -> None:
    _publish(house, house.step(name="up"))
    _publish(house, _alone(house, reference))
    assert _alone(house, reference).action == "reuse"
    house.clip("a", b"changed")
    step = _alone(house, reference)
    assert (step.action, step.reasons) == ("create", ("data.manifest: 1 file changed",))
    _publish(house, step)
    again = _alone(house, reference)
    assert (again.action, again.reuse, again.inputs) == ("reuse", "down@v2", step.inputs)
    (house.folder / "clips" / "a.wav").unlink()
    assert _alone(house, reference).reasons == ("data.manifest: 1 file removed",)
    house.clip("a")
    assert _alone(house, reference).reuse == "down@v1"


def test_together_or_alone_before_or_after_it_counts_the_same(house: House) -> None:
    up, down = house.plan(house.spec("up"), _down(house)).steps
    assert (down.inputs[1].path, down.inputs[1].recordings) == (None, None)
    _publish(house, up)
    _publish(house, down)
    for step in (house.plan(house.spec("up"), _down(house)).steps[1], _alone(house)):
        assert (step.action, step.writes, step.fingerprint) == ("reuse", False, down.fingerprint)


def test_recordings_below_another_root(house: House) -> None:
    _publish(house, house.step(name="up"))
    shutil.copytree(house.folder / "clips", house.folder / "denoised" / "clips")
    same = _alone(house, root="denoised")
    (house.folder / "denoised" / "clips" / "a.wav").write_bytes(b"less noise")
    other = _alone(house, root="denoised")
    up = house.store.manifest("up")
    assert up is not None
    assert same.inputs[1].digest == f"fingerprint:{up.fingerprint}#transcripts.jsonl"
    assert other.inputs[1].digest == f"fingerprint:{up.fingerprint}+{other.inputs[1].recordings}#transcripts.jsonl"
    assert str(house.store.root) not in str(_inputs(house, other).check(Pinner(Digests(house.store.layout.digests))))


def test_recordings_that_are_missing_are_counted(house: House) -> None:
    _publish(house, house.step(name="up"))
    assert _alone(house).inputs[1].missing == 0
    (house.folder / "clips" / "a.wav").unlink()
    plan = house.plan(_down(house))
    assert plan.steps[0].inputs[1].missing == 1
    (said,) = [line for line in lines(plan) if "data.manifest: artifact:up@v1" in line]
    assert ", 1 recording not found, fingerprint " in said


def test_without_a_root_paths_are_those_of_the_spec(house: House) -> None:
    _publish(house, house.step(name="up"))
    step, other = _alone(house, root=None), _alone(house, root="elsewhere")
    assert [entry.inputs[1].missing for entry in (step, other)] == [0, 2]
    found = _inputs(house, step).check(Pinner(Digests(house.store.layout.digests)))["data.manifest"]
    assert [name for name, _ in found] == ["clips/a.wav", "clips/b.wav"]


def test_recordings_inside_the_artifact_are_its_own(house: House) -> None:
    files = {"set/state.json": b"{}", "set/data-00000.arrow": b"1"}  # as `Dataset.save_to_disk` leaves them
    house.publish(house.step(name="up"), files=files)
    step = _alone(house, "artifact:up@v1#set", root=None)
    assert "+" not in step.inputs[1].digest
    assert _inputs(house, step).check(Pinner(Digests(house.store.layout.digests)))["data.manifest"] == []


@pytest.mark.parametrize("together", [True, False])
def test_recordings_that_change_during_the_run_are_a_conflict(house: House, together: bool) -> None:
    if together:
        up, down = house.plan(house.spec("up"), _down(house)).steps
        _publish(house, up)
    else:
        _publish(house, house.step(name="up"))
        down = _alone(house)
    inputs = _inputs(house, down)
    before = inputs.check(Pinner(Digests(house.store.layout.digests)))
    assert [row[0] for row in before["data.manifest"]] == ["clips/a.wav", "clips/b.wav"]
    house.clip("b", b"changed")
    with pytest.raises(ConflictError, match=r"down: data\.manifest: the files behind 'artifact:up"):
        inputs.check(Pinner(Digests(house.store.layout.digests)))


def test_a_manifest_keeps_the_digest_that_was_pinned(house: House) -> None:
    _publish(house, house.step(name="up"))
    house.clip("a", b"changed")
    step = _alone(house)
    row = next(row for row in _inputs(house, step).rows() if row["field"] == "data.manifest")
    assert (row["ref"], row["digest"]) == ("artifact:up@v1#transcripts.jsonl", step.inputs[1].digest)
    assert "+sha256:" in row["digest"]
