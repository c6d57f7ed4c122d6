"""`runner validate`, end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.cli.main import main
from tests.schema.helpers import GOOD

ROOT = Path(__file__).parents[2]


def run(*words: str, folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`runner validate` as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "runner.cli.main", "validate", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, input=stdin, capture_output=True, text=True, check=False
    )


def test_good_specs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(GOOD + "---\n" + GOOD.replace("name: a", "name: b"))
    assert main(["validate", str(tmp_path)]) == 0
    assert capsys.readouterr() == ("ok: 2 specs\n", "")
    assert main(["validate", str(tmp_path / "a.yaml"), "-o", "json"]) == 0
    assert capsys.readouterr() == ("[]\n", "")


def test_problems_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD + "beam_size: 3\nprecision: fp31\n")
    (tmp_path / "b.yaml").write_text("kind: [\n")
    done = run("a.yaml", "b.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    first, second, third, last = done.stderr.splitlines()
    assert first.startswith("a.yaml:5:1: beam_size: unknown field 'beam_size'")
    assert first.endswith("; `beam_size` belongs under `decode`")
    assert second.startswith("a.yaml:6:12: precision: ")
    assert third.startswith("b.yaml:2:1: ")
    assert last == "error: 3 problems in 2 files"


def test_problems_as_json(tmp_path: Path) -> None:
    (tmp_path / "é.yaml").write_text(GOOD + "precision: fp31\n")
    done = run("é.yaml", "-o", "json", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == ""
    assert json.loads(done.stdout) == [
        {
            "file": "é.yaml",
            "line": 5,
            "column": 12,
            "path": "precision",
            "code": "not-allowed",
            "message": "expected auto, fp32, bf16 or fp16; got the text 'fp31'",
            "hint": "did you mean 'fp32'?",
        }
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: &a [" + "*a, " * 9 + "]\n", "-:1:8: "),
        ("[" * 100_000, "-:1:65: "),
        (GOOD + "password: 'hunter2\n", "-:6:1: "),
        ("", "-:1:1: "),
    ],
    ids=["alias", "deep", "secret", "empty"],
)
def test_broken_stdin(tmp_path: Path, text: str, place: str) -> None:
    done = run("-", folder=tmp_path, stdin=text)
    assert done.returncode == 2
    assert place in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_set(tmp_path: Path) -> None:
    text = "vars: {b: 1}\n" + GOOD + 'decode: {beam_size: "${vars.b}"}\n'
    assert run("-", "--set", "b=8", folder=tmp_path, stdin=text).stdout == "ok: 1 spec\n"
    done = run("-", "--set", "b=none", folder=tmp_path, stdin=text)
    assert (done.returncode, "(from --set b)" in done.stderr) == (2, True)
    done = run("-", "--set", "b", folder=tmp_path, stdin=text)
    assert (done.returncode, done.stderr) == (2, "error: --set takes NAME=VALUE; got 'b'\n")


def test_words_that_are_wrong(tmp_path: Path) -> None:
    assert run(folder=tmp_path).returncode == 2
    done = run("gone.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("gone.yaml:1:1: no such file or folder; ")
