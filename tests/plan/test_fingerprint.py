"""What is in the fingerprint and what is not: every field of the spec is tried."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from runner.plan import fingerprint
from runner.plan.fields import walk
from runner.schema.errors import PlanError
from runner.schema.jobs.asr_transcribe import AsrTranscribe
from runner.schema.marks import Mark
from tests.plan.house import House, write_model

OTHER = {  # for every field a value that is not its default
    "name": "other",
    "description": "in other words",
    "apiVersion": None,
    "kind": None,
    "model.id": None,
    "model.revision": "v2",
    "model.adapter": None,
    "model.allow_pickle": True,
    "model.trust_remote_code": True,
    "data.audio": None,
    "data.manifest": None,
    "data.root": None,
    "data.text": None,
    "data.validation": None,
    "audio.channels": "left",
    "audio.silence_db": -50.0,
    "window.length_s": 10,
    "window.context_s": 2.0,
    "decode.beam_size": 8,
    "decode.lm": None,
    "decode.ngram_order": 2,
    "decode.alpha": 0.25,
    "decode.beta": 1,
    "decode.tune": None,
    "decode.hotwords": None,
    "decode.hotwords_file": None,
    "decode.hotword_weight": 2,
    "decode.timestamps": "char",
    "decode.language": "pt",
    "confidence.calibrate": None,
    "confidence.calibration": None,
    "route.below": 0.5,
    "precision": "fp32",
    "batch.seconds": 60,
    "batch.files": 2,
    "outputs": ["srt"],
    "on_error": "fail",
    "gates.max_wer": 0.5,
    "gates.max_cer": 0.5,
    "gates.max_failed_share": 0.5,
    "gates.min_confidence": 0.5,
    "compute.gpus": 1,
    "compute.cpus": 2,
    "compute.memory_gb": 4,
    "compute.accelerator": "H100",
    "compute.workers": 2,
    "compute.timeout": "2h",
    "compute.retries": 0,
}
SPEC = AsrTranscribe.model_validate(
    {"kind": "asr-transcribe", "name": "a", "model": "./model", "data": {"audio": ["clips/*.wav"]}}
)
MARKS = {field.path: field.mark for field in walk(SPEC)}


def test_every_field_of_the_spec_is_tried() -> None:
    assert MARKS.keys() == OTHER.keys()


@pytest.mark.parametrize("path", [path for path, value in OTHER.items() if value is not None])
def test_result_fields_change_it_and_neutral_ones_do_not(house: House, path: str) -> None:
    before = house.step().fingerprint
    spec: dict[str, Any] = house.spec()
    block, _, name = path.rpartition(".")
    target = spec.setdefault(block, {}) if block else spec
    target[name] = OTHER[path]
    (step,) = house.plan(spec).steps
    assert (step.fingerprint != before) is (MARKS[path] is Mark.RESULT)


def test_the_kind_s_code_version_changes_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    before = house.step().fingerprint
    monkeypatch.setattr(AsrTranscribe, "code_version", AsrTranscribe.code_version + 1)
    assert house.step().fingerprint != before


def test_moving_the_folder_and_the_order_of_keys_keep_it(house: House, tmp_path: Path) -> None:
    before = house.step().fingerprint
    moved = tmp_path / "elsewhere" / "deep"
    shutil.copytree(house.folder, moved)
    reordered = dict(reversed(house.spec().items()))
    assert house.plan(reordered, folder=moved).steps[0].fingerprint == before


def test_an_integer_and_the_same_float_are_one_value(house: House) -> None:
    assert house.step(audio={"silence_db": -50}).fingerprint == house.step(audio={"silence_db": -50.0}).fingerprint


def test_defaults_are_the_same_written_or_left_out(house: House) -> None:
    assert house.step(decode={"beam_size": 1}, window={}).fingerprint == house.step().fingerprint


def test_content_paths_and_number_of_files_change_it(house: House) -> None:
    seen = {house.step().fingerprint}
    house.clip("a", b"other")
    seen.add(house.step().fingerprint)
    house.clip("c")
    seen.add(house.step().fingerprint)
    (house.folder / "clips" / "c.wav").rename(house.folder / "clips" / "d.wav")
    seen.add(house.step().fingerprint)
    write_model(house.folder / "model", seed=1)
    seen.add(house.step().fingerprint)
    assert len(seen) == 5


def test_the_pattern_does_not_count_only_what_it_finds(house: House) -> None:
    assert house.step(data={"audio": ["clips"]}).fingerprint == house.step().fingerprint
    (house.folder / "model" / "README.md").write_text("not read")
    shutil.copytree(house.folder / "model", house.folder / "same")
    assert house.step(model="./same").fingerprint == house.step().fingerprint


def test_a_manifest_counts_with_the_audio_it_names(house: House) -> None:
    table = house.folder / "m.jsonl"
    table.write_text('{"audio": "clips/a.wav"}\n{"audio": "clips/gone.wav"}\n')
    data = {"manifest": "m.jsonl"}
    seen = {house.step(data=data).fingerprint}
    house.clip("b", b"not named")
    assert house.step(data=data).fingerprint in seen
    house.clip("a", b"other")
    seen.add(house.step(data=data).fingerprint)
    house.clip("gone", b"here now")
    seen.add(house.step(data=data).fingerprint)
    table.write_text('{"audio": "clips/a.wav", "text": "x"}\n{"audio": "clips/gone.wav"}\n')
    seen.add(house.step(data=data).fingerprint)
    assert len(seen) == 4
    table.rename(house.folder / "n.jsonl")
    assert house.step(data={"manifest": "n.jsonl"}).fingerprint in seen


def test_a_manifest_that_names_pipes_and_folders_is_planned(house: House) -> None:
    os.mkfifo(house.folder / "pipe.wav")
    (house.folder / "m.jsonl").write_text('{"audio": "pipe.wav"}\n{"audio": "clips"}\n{"audio": "clips/a.wav"}\n')
    entry = house.step(data={"manifest": "m.jsonl"}).inputs[1]
    assert (entry.files, entry.size) == (3, 1)


def test_a_file_counts_by_its_content(house: House) -> None:
    lm, decode = house.folder / "a.arpa", {"lm": "a.arpa", "beam_size": 8}
    with pytest.raises(PlanError, match=r"decode\.lm: 'a\.arpa' is no file"):
        house.step(decode=decode)
    lm.write_text("one")
    before = house.step(decode=decode)
    assert before.inputs[-1].path == str(lm)
    assert (before.inputs[-1].files, before.estimate["files"]) == (0, 2), "it is no recording"
    lm.rename(house.folder / "b.arpa")
    assert house.step(decode={**decode, "lm": "b.arpa"}).fingerprint == before.fingerprint
    (house.folder / "b.arpa").write_text("two")
    assert house.step(decode={**decode, "lm": "b.arpa"}).fingerprint != before.fingerprint


def test_a_file_of_another_job_makes_an_edge(house: House) -> None:
    (house.folder / "s.txt").write_text("olá\n")
    up = house.spec("a", data={"audio": ["clips/*.wav"], "text": "s.txt"}, decode={"beam_size": 8})
    down = house.spec("b", decode={"lm": "artifact:a#lm.arpa", "beam_size": 8})
    first = house.plan(up, down).steps
    assert first[1].after == ("a",)
    (house.folder / "s.txt").write_text("adeus\n")
    assert house.plan(up, down).steps[1].fingerprint != first[1].fingerprint


def test_downstream_is_known_before_upstream_ran(house: House) -> None:
    down = house.spec("b", data={"manifest": "artifact:a#transcripts.jsonl", "root": "."})
    first = house.plan(house.spec(), down).steps
    house.publish(first[0])
    second = house.plan(house.spec(), down).steps
    alone = house.plan(down).steps
    assert first[1].fingerprint == second[1].fingerprint == alone[0].fingerprint
    changed = house.plan(house.spec(precision="fp32"), down).steps
    assert changed[1].fingerprint != first[1].fingerprint


def test_canonical_json() -> None:
    assert fingerprint.canonical({"b": 1e-7, "a": [None, True, "é"]}) == b'{"a":[null,true,"\\u00e9"],"b":1e-07}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint.canonical(float("nan"))


def test_pinned_value() -> None:
    """The same everywhere and for ever: a change here makes every artifact anew and needs a new HASH_VERSION."""
    found = fingerprint.of(kind="k", code_version=1, result={"x.y": 0.5}, inputs={"data": "sha256:00"})
    assert found == "c54505b61c2b20bb9e545cfdcdd05554471b1fc8ea3ea36d4aed23a302d02932"
    assert fingerprint.of_listing([("a/b.wav", "00"), ("c", "missing")]) == (
        "sha256:e45cb4d085c6aad9d485817743bb35edfd96440405dd8adce4e67994f83b458a"
    )
