"""`runner apply`: what it prints and which code it ends with. The toy job stands in through a saved artifact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from runner.cli.main import main
from runner.execution.inline import Inline
from runner.execution.order import Order, Outcome
from tests.e2e.helpers import ROOT, RUNNER, environment
from tests.execution import toys
from tests.execution.helpers import applied, apply_one, folder_with, planned, spec

Capture = pytest.CaptureFixture[str]


def _apply(tmp_path: Path, *words: str) -> int:
    return main(["apply", str(tmp_path / "spec.yaml"), "--store", str(tmp_path / "store"), "--local", *words])


class _Talker(Inline):
    """Fails each order, and prints as ray's threads do."""

    def submit(self, order: Order) -> None:
        print("(raylet) a worker died")
        self._done.append((order, Outcome(state="failed", failure="NotFound", exit_code=1, again=False, message="x")))


@pytest.mark.parametrize("words", [[], ["-o", "json"]], ids=["text", "json"])
def test_what_the_executor_prints_goes_to_stderr(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr("runner.execution.choose.executor", lambda **_: lambda hard: _Talker(hard=hard))
    folder_with(tmp_path, spec())
    assert _apply(tmp_path, *words) == 1
    heard = capsys.readouterr()
    assert heard.err == "(raylet) a worker died\n"
    assert "raylet" not in heard.out
    if words:
        assert json.loads(heard.out)["exit_code"] == 1


def test_nothing_to_do(tmp_path: Path, capsys: Capture) -> None:
    apply_one(tmp_path, toys.write)
    assert _apply(tmp_path) == 0
    assert capsys.readouterr().out == f"nothing to do: 1 artifact up to date in {tmp_path / 'store'}\n"


def test_nothing_to_do_as_json(tmp_path: Path, capsys: Capture) -> None:
    apply_one(tmp_path, toys.write)
    assert _apply(tmp_path, "-o", "json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["exit_code"] == 0
    (step,) = data["steps"]
    assert (step["name"], step["action"], step["artifact"], step["exit_code"]) == ("toy", "reused", "toy@v1", 0)


def test_an_apply_with_nothing_to_do_loads_neither_ray_nor_rich_nor_torch(tmp_path: Path) -> None:
    apply_one(tmp_path, toys.write)
    code = (
        "import sys; from runner.cli.main import main; code = main(sys.argv[1:]); "
        "print(code, {m.partition('.')[0] for m in sys.modules} & {'ray', 'rich', 'torch', 'numpy', 'jinja2'})"
    )
    words = ["apply", str(tmp_path / "spec.yaml"), "--store", str(tmp_path / "store")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 set()"


def test_a_link_is_made_without_running_anything(tmp_path: Path, capsys: Capture) -> None:
    apply_one(tmp_path, toys.write)
    folder_with(tmp_path, spec(), spec("twin"))
    assert _apply(tmp_path) == 0
    out = capsys.readouterr().out
    assert "twin  linked" in out
    assert "twin@v1" in out
    assert _apply(tmp_path) == 0
    assert "nothing to do: 2 artifacts" in capsys.readouterr().out


def test_a_gate_that_blocks_is_3(tmp_path: Path, capsys: Capture) -> None:
    apply_one(tmp_path, toys.write)
    folder_with(tmp_path, spec(gates={"max_wer": 0.1}))
    assert _apply(tmp_path) == 3
    out = capsys.readouterr().out
    assert "blocked" in out
    assert "gate max_wer 0.1 not met: wer is 0.25" in out


def test_infeasible_is_4_at_once(tmp_path: Path, capsys: Capture) -> None:
    folder_with(tmp_path, spec(compute={"cpus": 4000}))
    assert _apply(tmp_path) == 4
    assert "toy: needs 4000 CPUs, this machine has" in capsys.readouterr().err


def test_a_held_name_is_5(tmp_path: Path, capsys: Capture) -> None:
    _, store = planned(tmp_path, spec())
    with store.lease("toy"):
        assert _apply(tmp_path) == 5
    assert "is being written by process" in capsys.readouterr().out


def test_a_stale_saved_plan_is_5(tmp_path: Path, capsys: Capture) -> None:
    folder_with(tmp_path, spec())
    store, saved = str(tmp_path / "store"), str(tmp_path / "plan.json")
    assert main(["plan", str(tmp_path / "spec.yaml"), "--store", store, "-o", saved]) == 0
    (tmp_path / "clip.wav").write_bytes(b"other")
    assert main(["apply", saved, "--store", store, "--local"]) == 5
    assert "stale" in capsys.readouterr().err


def test_a_saved_plan_finds_its_work_done(tmp_path: Path, capsys: Capture) -> None:
    plan, store = planned(tmp_path, spec())
    applied(plan, store, toys.write)
    saved = str(tmp_path / "plan.json")
    assert main(["plan", str(tmp_path / "spec.yaml"), "--store", str(store.root), "-o", saved]) == 0
    capsys.readouterr()
    assert main(["apply", saved, "--store", str(store.root)]) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan.json", "spec.yaml"], "a saved plan is applied alone"),
        (["plan.json", "--set", "a=1"], "a saved plan is applied alone"),
        (["spec.yaml", "--local", "--address", "x:1"], "exclude each other"),
        (["spec.yaml", "--set", "a"], "--set takes NAME=VALUE"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_wrong_words_are_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.json").write_text('{"format": "runner-plan"}')
    assert main(["apply", *words, "--store", str(tmp_path / "store")]) == 2
    assert said in capsys.readouterr().err


def test_a_json_file_that_is_no_saved_plan_is_applied_as_a_spec(tmp_path: Path, capsys: Capture) -> None:
    apply_one(tmp_path, toys.write)
    (tmp_path / "spec.yaml").rename(tmp_path / "spec.json")
    words = ["--store", str(tmp_path / "store")]
    assert main(["apply", str(tmp_path / "spec.json"), *words]) == 0
    assert "nothing to do: 1 artifact" in capsys.readouterr().out
    (tmp_path / "spec.json").write_text('{"kind": "asr-transcribe", "nmae": "toy"}')
    assert main(["apply", str(tmp_path / "spec.json"), *words]) == 2
    error = capsys.readouterr().err
    assert "spec.json:1:28: nmae: " in error
    assert "plan" not in error


def test_a_missing_ray_is_named_with_the_way_out(tmp_path: Path) -> None:
    folder_with(tmp_path, spec())
    hidden = "import sys; sys.modules['ray'] = None; import importlib.util as u; find = u.find_spec; "
    hidden += "u.find_spec = lambda n, *a: None if n == 'ray' else find(n, *a); "
    code = hidden + "from runner.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["apply", str(tmp_path / "spec.yaml"), "--store", str(tmp_path / "store")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (ray,) = project["optional-dependencies"]["ray"]
    assert f"pip install '{ray}'" in done.stderr
    assert "--local" in done.stderr


def test_json_is_alone_on_stdout_whatever_the_job_prints(tmp_path: Path) -> None:
    """The job of this kind fails here, for the clip holds no sound, or cannot be loaded: either way stdout is JSON."""
    folder_with(tmp_path, spec(on_error="fail", compute={"retries": 0}))
    words = ["apply", str(tmp_path / "spec.yaml"), "--store", str(tmp_path / "store"), "--local", "-o", "json"]
    done = subprocess.run(
        [*RUNNER, *words],
        cwd=ROOT,
        env={**environment(), "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    data = json.loads(done.stdout)
    assert done.returncode == data["exit_code"] == 1
    assert data["steps"][0]["action"] == "failed"
    assert os.path.exists(tmp_path / "store" / ".runs" / data["steps"][0]["run"] / "log.txt")  # noqa: PTH110
