"""A saved plan is applied as it was seen, or refused with what moved."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.plan import fingerprint, saved
from runner.schema.errors import ConflictError, PlanError, UsageError
from runner.schema.jobs.asr_transcribe import AsrTranscribe
from runner.store.local import open_store
from tests.plan.house import House, write_model


def _saved(house: House, *specs: dict[str, Any]) -> Path:
    path = house.folder / "plan.json"
    saved.save(house.plan(*(specs or (house.spec(),))), path)
    return path


def _stale(house: House, path: Path) -> str:
    with pytest.raises(ConflictError) as caught:
        saved.load_saved(path, house.store)
    assert caught.value.exit_code == 5
    return str(caught.value)


def test_it_comes_back_as_it_was(house: House) -> None:
    plan = house.plan(house.spec(), house.spec("b", model="artifact:a"))
    path = house.folder / "plan.json"
    saved.save(plan, path)
    assert saved.load_saved(path, house.store) == plan
    assert [p.name for p in house.folder.iterdir() if ".tmp" in p.name] == []


def test_the_spec_file_is_not_read_again(house: House) -> None:
    path = _saved(house)
    (house.folder / "set.yaml").write_text("kind: [")
    assert saved.load_saved(path, house.store).steps[0].action == "create"


def test_files_that_changed(house: House) -> None:
    path = _saved(house)
    house.clip("a", b"changed")
    text = _stale(house, path)
    assert "is stale: a: data.audio clips/*.wav sha256:" in text
    assert "make it anew with `runner plan ... -o " in text


def test_a_model_that_changed_or_went(house: House) -> None:
    path = _saved(house)
    write_model(house.folder / "model", seed=3)
    assert "a: model ./model sha256:" in _stale(house, path)
    (house.folder / "model").rename(house.folder / "gone")
    assert "does not exist" in _stale(house, path)


def test_an_artifact_that_was_made_meanwhile(house: House) -> None:
    path = _saved(house)
    house.publish(house.step())
    assert "a: create (no artifact yet) -> reuse (v1 has this fingerprint)" in _stale(house, path)


def test_a_latest_version_that_moved(house: House) -> None:
    house.publish(house.step(name="up"))
    path = _saved(house, house.spec("down", data={"manifest": "artifact:up#transcripts.jsonl"}))
    house.publish(house.step(name="up", precision="fp32"))
    assert "down: data.manifest artifact:up@v1#transcripts.jsonl" in _stale(house, path)


def test_another_store_or_another_runner(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _saved(house)
    with pytest.raises(ConflictError, match=r"store .*store -> .*other"):
        saved.load_saved(path, open_store(str(tmp_path / "other")))
    monkeypatch.setattr(saved, "__version__", "9.9")
    assert "-> 9.9" in _stale(house, path)
    monkeypatch.undo()
    monkeypatch.setattr(fingerprint, "HASH_VERSION", 2)
    assert "hash_version 1 -> 2" in _stale(house, path)


def test_another_code_version_of_the_kind(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _saved(house)
    monkeypatch.setattr(AsrTranscribe, "code_version", AsrTranscribe.code_version + 1)
    assert "a: code_version 2 -> 3" in _stale(house, path)


def _without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda data: data["plan"]["steps"][0].pop(key)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda data: data.pop("format"), "is no saved plan"),
        (lambda data: data.pop("plan"), "is damaged (at 'plan')"),
        (_without("fingerprint"), "is damaged (at 'steps.0.fingerprint')"),
        (lambda data: data["plan"]["steps"][0].update(folder=3), "is damaged (at 'steps.0.folder')"),
        (lambda data: data["plan"]["steps"][0].update(action="burn"), "is damaged (at 'steps.0.action')"),
        (lambda data: data["plan"]["steps"][0].update(kind="os"), "has a step of unknown kind 'os'"),
        (lambda data: data["plan"]["steps"][0]["spec"].update(name="../x"), "has a spec that is not valid: 'a'"),
        (lambda data: data["plan"]["steps"][0]["spec"].update(name="other"), "has a spec that is not valid: 'a'"),
    ],
)
def test_a_file_that_is_no_plan(house: House, harm: Callable[[dict[str, Any]], object], words: str) -> None:
    path = _saved(house)
    data = json.loads(path.read_text())
    harm(data)
    data["sha256"] = hashlib.sha256(json.dumps(data.get("plan"), sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(data))
    with pytest.raises(PlanError) as caught:
        saved.load_saved(path, house.store)
    assert words in str(caught.value)


def test_a_plan_changed_by_hand(house: House) -> None:
    path = _saved(house)
    path.write_text(path.read_text().replace('"beam_size": 1', '"beam_size": 3'))
    with pytest.raises(PlanError, match="was changed after it was saved"):
        saved.load_saved(path, house.store)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_a_file_that_is_no_json(house: House, content: bytes) -> None:
    path = house.folder / "plan.json"
    path.write_bytes(content)
    with pytest.raises(PlanError, match="is no saved plan"):
        saved.load_saved(path, house.store)
    with pytest.raises(PlanError, match="can't read the plan"):
        saved.load_saved(house.folder / "none.json", house.store)


def test_saved_plans_are_told_from_other_files(house: House) -> None:
    path = _saved(house)
    assert saved.is_saved(str(path))
    path.write_bytes(path.read_bytes()[:200])  # damaged, and still a plan
    assert saved.is_saved(str(path))
    for name, content in (("spec.json", b'{"kind": "x", "format": "runner-plan"}'), ("empty.json", b"")):
        (house.folder / name).write_bytes(content)
        assert not saved.is_saved(str(house.folder / name))
        with pytest.raises(UsageError, match=f"{name}' is there and no saved plan"):
            saved.save(house.plan(house.spec()), house.folder / name)
        assert (house.folder / name).read_bytes() == content
    os.mkfifo(house.folder / "pipe.json")
    for name in ("pipe.json", "none.json", "set.yaml", "."):
        assert not saved.is_saved(str(house.folder / name))
    assert not saved.is_saved("-")


def test_a_place_that_cannot_be_written(house: House) -> None:
    with pytest.raises(PlanError, match="can't write the plan"):
        saved.save(house.plan(house.spec()), house.folder / "no" / "such" / "plan.json")
    assert not (house.folder / "no").exists()
