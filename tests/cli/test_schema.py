"""`runner schema`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.cli.main import main
from runner.schema import jsonschema


def test_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == jsonschema.build()
    assert err == ""


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
    assert main(["schema", "-o", str(tmp_path)]) == 2
    assert "cannot write" in capsys.readouterr().err
