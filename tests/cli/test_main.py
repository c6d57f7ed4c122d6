"""The frame of the command line: verbs, options before them, exit codes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from runner import __version__
from runner.cli.main import main
from tests.e2e.helpers import ROOT, RUNNER, environment
from tests.execution import toys
from tests.execution.helpers import applied, planned, spec


def test_options_may_come_before_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", str(tmp_path / "plan"), "artifacts", "ls"]) == 0
    assert str(tmp_path / "plan") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "verbs:"),
        (["--version"], 0, f"runner {__version__}"),
        ([], 2, "VERB"),
        (["aply"], 2, "invalid choice: 'aply'"),
        (["plan", "--bogus"], 2, "the following arguments are required: PATH"),
    ],
    ids=["help", "version", "nothing", "unknown verb", "unknown option"],
)
def test_words_that_end_at_once(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == code
    heard = capsys.readouterr()
    assert said in heard.out + heard.err


def test_several_problems_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "a.yaml"
    spec.write_text("kind: asr-transcribe\nname: A\nbogus: 1\n")
    assert main(["plan", str(spec)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"error: {len(lines) - 1} problems"
    assert all(line.startswith(f"{spec}:") for line in lines[:-1])


def test_a_stdout_that_is_not_utf_8_gets_escapes(tmp_path: Path) -> None:
    home = tmp_path / "ação"
    home.mkdir()
    plan, store = planned(home, spec())
    applied(plan, store, toys.write)

    def said(*words: str) -> str:
        env = environment(PYTHONIOENCODING="ascii", RUNNER_STORE=str(store.root))
        done = subprocess.run([*RUNNER, *words], cwd=ROOT, env=env, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode("ascii")

    path = str(home / "spec.yaml")
    assert "a\\u00e7\\u00e3o" in said("plan", path)
    assert "a\\u00e7\\u00e3o" in said("artifacts", "show", "toy")
    assert json.loads(said("plan", path, "-o", "json"))["store"] == str(store.root)
