"""`runner schema`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.cli.main import main
from runner.schema import jsonschema


@pytest.mark.parametrize("words", [[], ["-o", "json"]], ids=["plain", "json"])
def test_prints_it(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["schema", *words]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == jsonschema.build()
    assert err == ""
    assert not list(tmp_path.iterdir()), "`-o json` means as JSON, as everywhere; it is no file"


@pytest.mark.parametrize("word", ["text", "yaml", ""])
def test_a_word_that_is_no_file_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "-o", word]) == 2
    said = f"error: -o {word!r} is unknown; allowed are json and a file that ends with .json\n"
    assert capsys.readouterr().err == said


def test_writes_and_checks_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "runner.schema.json"
    assert main(["schema", "-o", str(file)]) == 0
    assert main(["schema", "--check", str(file)]) == 0
    assert file.read_text(encoding="utf-8") == jsonschema.text()
    file.write_text(file.read_text(encoding="utf-8").replace("beam_size", "beam"))
    capsys.readouterr()
    assert main(["schema", "--check", str(file)]) == 1
    assert capsys.readouterr().err == f"error: {file} is not the current schema; `runner schema -o {file}` writes it\n"


def test_files_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--check", str(tmp_path / "gone.json")]) == 2
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "folder.json").mkdir()
    assert main(["schema", "-o", str(tmp_path / "folder.json")]) == 2
    assert "cannot write" in capsys.readouterr().err
