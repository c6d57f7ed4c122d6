"""`runner plan`: what is printed, saved and answered."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runner.cli.main import main
from tests.plan.house import House


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """Specs to plan, with their folder as the current one."""
    found = House(tmp_path)
    monkeypatch.chdir(found.folder)
    monkeypatch.setenv("RUNNER_STORE", str(found.store.root))
    return found


def _write(house: House, text: str) -> None:
    (house.folder / "a.yaml").write_text(text)


SPEC = """kind: asr-transcribe
name: a
model: ./model
data: {audio: ["clips/*.wav"]}
"""


def test_text_says_what_and_why(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    _write(house, SPEC)
    assert main(["plan", "a.yaml"]) == 0
    step = house.plan(house.spec()).steps[0]
    digests = [entry.digest.removeprefix("sha256:")[:12] for entry in step.inputs]
    assert capsys.readouterr().out == (
        "+ create  a (asr-transcribe, a.yaml:1)\n"
        "    no artifact yet\n"
        f"    model: ./model, 3 files, {step.inputs[0].size} B, sha256 {digests[0]}\n"
        f"    data.audio: clips/*.wav, 2 files, 2 B, sha256 {digests[1]}\n"
        "    family: wav2vec2, 0.0 M parameters, about 0.5 GB memory a worker (estimate)\n"
        "\n"
        f"Plan: 1 to create, 0 to reuse, in {house.store.root}.\n"
    )


def test_recordings_that_are_missing_are_counted(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    _write(house, SPEC.replace('audio: ["clips/*.wav"]', "manifest: m.jsonl"))
    lines = ['{"audio": "clips/a.wav"}', '{"audio": "gone.wav"}', '{"audio": "gone.wav", "start": 1}']
    (house.folder / "m.jsonl").write_text("\n".join(lines))
    assert main(["plan", "a.yaml"]) == 0
    assert "    data.manifest: m.jsonl, 2 files, 1 B, 1 recording not found, sha256 " in capsys.readouterr().out
    assert main(["plan", "a.yaml", "-o", "json"]) == 0
    model, table = json.loads(capsys.readouterr().out)["steps"][0]["inputs"]
    assert (model["missing"], table["missing"], table["files"]) == (0, 1, 2)
    (house.folder / "gone.wav").write_bytes(b"x")
    assert main(["plan", "a.yaml"]) == 0
    assert "not found" not in capsys.readouterr().out


def test_nothing_to_do_is_one_line_a_step(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    _write(house, SPEC)
    house.publish(house.step())
    assert main(["plan", "a.yaml", "--exit-code"]) == 0
    out = capsys.readouterr().out
    assert (
        out == f"= reuse   a: v1 has this fingerprint\n\nNothing to do: 1 artifact up to date in {house.store.root}.\n"
    )


@pytest.mark.parametrize(("gate", "code"), [(0.5, 0), (0.05, 3)])
def test_exit_code_of_a_gate(house: House, gate: float, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    _write(house, SPEC + f"gates: {{max_wer: {gate}}}\n")
    house.publish(house.step(), wer=0.1)
    assert main(["plan", "a.yaml", "--exit-code"]) == code
    assert main(["plan", "a.yaml"]) == 0
    assert ("! blocked a" in capsys.readouterr().out) is (code == 3)


def test_exit_code_of_changes(house: House) -> None:
    _write(house, SPEC)
    assert main(["plan", "a.yaml", "--exit-code"]) == 10


def test_json_is_all_of_stdout(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    _write(house, SPEC)
    assert main(["plan", "a.yaml", "-o", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["changes"] is True
    assert data["counts"] == {"create": 1, "reuse": 0, "blocked": 0}
    assert data["steps"][0]["reasons"] == ["no artifact yet"]


def test_a_file_name_saves_the_plan(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    _write(house, SPEC)
    assert main(["plan", "a.yaml", "-o", "out.json"]) == 0
    assert "Saved as out.json; `runner apply out.json` carries out exactly this." in capsys.readouterr().out
    assert json.loads(Path("out.json").read_text())["format"] == "runner-plan"


def test_only_a_saved_plan_is_written_over(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    spec = json.dumps(house.spec())
    Path("a.json").write_text(spec)
    assert main(["plan", "a.json", "-o", "a.json"]) == 2
    out, err = capsys.readouterr()
    assert (out, Path("a.json").read_text()) == ("", spec)
    assert "'a.json' is there and no saved plan; it was left as it is, choose another file" in err
    assert main(["plan", "a.json", "-o", "plan.json"]) == 0
    first = Path("plan.json").read_text()
    house.clip("c")
    assert main(["plan", "a.json", "-o", "plan.json"]) == 0
    assert Path("plan.json").read_text() != first


def test_variables_are_set(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    _write(house, SPEC + "decode: {beam_size: '${vars.beam}'}\nvars: {beam: 1}\n")
    assert main(["plan", "a.yaml", "--set", "beam=7", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"][0]["spec"]["decode"]["beam_size"] == 7


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-o", "yaml"], "-o 'yaml' is unknown; allowed are text, json and a file that ends with .json"),
        (["--set", "beam"], "--set takes NAME=VALUE; got 'beam'"),
        (["--set", "=1"], "--set takes NAME=VALUE; got '='"),
    ],
)
def test_wrong_words(house: House, words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    _write(house, SPEC)
    assert main(["plan", "a.yaml", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err


def test_problems_have_a_place_and_no_trace(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    _write(house, SPEC.replace("*.wav", "*.mp3").replace("./model", "./modell"))
    assert main(["plan", "a.yaml", "-o", "json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "a.yaml:3:8: model" in err
    assert "a.yaml:4:16: data.audio[0]: no file matches 'clips/*.mp3'" in err
    assert "Traceback" not in err


def test_an_odd_file_name_is_no_bug(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    (house.folder / "clips" / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"x")
    _write(house, SPEC)
    assert main(["plan", "a.yaml"]) == 0
    assert "3 files" in capsys.readouterr().out
