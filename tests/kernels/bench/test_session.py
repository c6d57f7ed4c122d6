"""A run within its minutes: rows, order of the table, what fails on the way; and the command on a CPU."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.kernels.bench import __main__ as command
from runner.kernels.bench.harness import clock, machine, session
from runner.kernels.bench.harness.case import Case, Peer, leaves, normal, outputs
from runner.kernels.bench.harness.clock import Measured, take_turns
from runner.kernels.bench.harness.gate import Gate
from runner.kernels.bench.harness.machine import Ceilings
from runner.kernels.bench.harness.session import Session

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")


def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def broken(x: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError("no such\nbackend")


CASE = Case(
    name="some",
    shape={"R": 8},
    tiny={"R": 2},
    make=lambda shape, dtype, device: (normal(shape["R"], 3, like=(dtype, device)),),
    own=doubled,
    reference=doubled,
    work=lambda shape, itemsize: dict.fromkeys(("forward", "backward"), 2.0 * shape["R"] * 3 * itemsize),
    bound="memory",
    dtype=torch.float32,
    peers=(
        Peer(name="torch", run=doubled),
        Peer(name="broken", run=broken),
        Peer(name="other", run=lambda x: x * 3),
        Peer(name="liger", run=doubled, missing="liger-kernel is not installed"),
    ),
)  # fmt: skip


class OnCpu(clock.Engine):
    """An engine timed by the host."""

    def warm_up(self) -> None:
        self._once_on_cpu()
        self.measured.peaks = dict.fromkeys(("forward", "backward", "both"), 2**20)

    def round(self, runs: int) -> None:
        for _ in range(runs):
            start = time.perf_counter()
            self._once_on_cpu()
            for which in ("forward", "backward", "both"):
                self.measured.times.setdefault(which, []).append((time.perf_counter() - start) * 1e3)

    def _once_on_cpu(self) -> None:
        ys = outputs(self.run(*self.sets[0]))
        torch.autograd.grad(ys, leaves(self.sets[0]), [torch.ones_like(y) for y in ys])


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU passes for the GPU."""
    monkeypatch.setattr(session, "Engine", OnCpu)
    monkeypatch.setattr(machine, "ceilings", lambda: Ceilings(copy_bytes_per_s=1e12, matrix_flops_per_s=1e15))
    monkeypatch.setattr(machine, "cache_bytes", lambda device: 0)


def ran(
    folder: Path, cases: dict[str, Sequence[Case]], monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[bool, list[dict[str, Any]], list[str]]:
    """Whether gates were passed, the rows, what was said."""
    shut = options.pop("shut", ())
    found = {kernel: Gate(passed=kernel not in shut, why="tests failed: test_x" if kernel in shut else "3 tests passed")
             for kernel in cases}  # fmt: skip
    monkeypatch.setattr(session, "run_tests", lambda *_, **__: found)
    said: list[str] = []
    options = {"minutes": 0.01, "device": CPU, **options}
    passed = Session(root=ROOT, out=folder / "rows.jsonl", say=said.append, **options).run(cases)
    return passed, [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()], said


@pytest.mark.usefixtures("on_cpu")
def test_rows_say_all_there_is_to_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed, rows, said = ran(tmp_path, {"double": [CASE]}, monkeypatch)
    assert passed
    assert [(row["pass"], row["engine"]) for row in rows] == [
        (which, engine) for which in ("forward", "backward", "both") for engine in ("own", "torch")
    ]
    row = rows[0]
    assert set(row) == {
        "v", "kernel", "case", "shape", "dtype", "pass", "engine", "measured", "median_ms", "p20_ms", "p80_ms", "runs",
        "ratio", "bound", "share", "peak_mib", "left_out", "error", "gate", "gate_passed", "device", "ceilings",
        "versions", "commit", "dirty", "digest", "minutes",
    }  # fmt: skip
    assert row["measured"] is True
    assert row["p20_ms"] <= row["median_ms"] <= row["p80_ms"]
    assert row["runs"] >= 10
    assert row["ratio"] == {"torch": round(rows[1]["median_ms"] / row["median_ms"], 4)}
    assert row["share"] == round(2 * 8 * 3 * 4 / (row["median_ms"] / 1e3) / 1e12, 4)
    assert row["left_out"]["broken"] == "NotImplementedError: no such backend"
    assert row["left_out"]["other"].startswith("computes something else")
    assert row["left_out"]["liger"] == "liger-kernel is not installed"
    assert row["gate"] == "3 tests passed; values agree at this shape"
    assert set(row["versions"]) == {"torch", "triton", "transformers", "liger-kernel"}
    assert "double/some" in said[-1]


@pytest.mark.usefixtures("on_cpu")
def test_a_kernel_behind_a_shut_gate_or_wrong_at_the_shape_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(CASE, own=lambda x: x * 2.5)
    raising = replace(CASE, own=broken)
    cases = {"shut": [CASE], "wrong": [wrong], "raising": [raising], "right": [CASE]}
    passed, rows, said = ran(tmp_path, cases, monkeypatch, shut=("shut",), minutes=1.0)
    assert not passed
    first = {row["kernel"]: row for row in reversed(rows)}
    assert [first[name]["measured"] for name in cases] == [False, False, False, True]
    assert "median_ms" not in first["shut"] | first["wrong"]
    assert first["shut"]["why"] == "the gate is shut"
    assert first["shut"]["gate"] == "tests failed: test_x"
    assert first["wrong"]["gate"].startswith("3 tests passed; value 0: error 2.5")
    assert "NotImplementedError: no such backend" in first["raising"]["gate"]
    assert said[-1].count("not measured") == 3


@pytest.mark.usefixtures("on_cpu")
def test_time_is_shared_and_when_it_is_over_rows_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, ends = [0.0], []

    def turns(engines: Any, *, until: float, clock: Any) -> None:
        ends.append(until)
        for engine in engines.values():
            engine.round(10)
        now[0] += 50.0

    monkeypatch.setattr(clock, "take_turns", turns)
    cases = {name: [CASE] for name in ("a", "b", "c")}
    passed, rows, _ = ran(tmp_path, cases, monkeypatch, minutes=1.5, now=lambda: now[0])
    assert passed
    assert ends == [30.0, 70.0]  # 90 s among three, then the 40 that are left among two
    assert [row["kernel"] for row in rows if not row["measured"]] == ["c"]
    assert rows[-1]["why"] == "no time left"


@pytest.mark.usefixtures("on_cpu")
def test_compiling_is_left_out_where_there_is_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, rows, _ = ran(tmp_path, {"a": [replace(CASE, compiled=doubled)]}, monkeypatch)
    assert rows[0]["left_out"]["compile"] == "no time left to compile"


def test_engines_take_turns_and_none_is_always_first() -> None:
    order: list[str] = []

    class Some:
        def __init__(self, name: str) -> None:
            self.name = name

        def round(self, runs: int) -> None:
            order.extend([self.name] * (runs == clock.RUNS[0] // 2))

    take_turns({"a": Some("a"), "b": Some("b")}, until=0.0, clock=lambda: 1.0)  # type: ignore[dict-item]
    assert order == ["a", "b", "b", "a"]
    take_turns({"a": Some("a")}, until=2.0, clock=lambda: 1.0)  # type: ignore[dict-item]
    assert len(order) == 4 + clock.RUNS[1] // (clock.RUNS[0] // 2)


def test_inputs_are_more_than_the_cache_holds() -> None:
    x = torch.zeros(1024)
    assert clock.sets_needed((x, 3), 0) == 1
    assert clock.sets_needed((x,), 4096) == 3
    assert clock.sets_needed((x,), 2**30) == clock.SETS


def test_what_falls_short_comes_first() -> None:
    from runner.kernels.bench.harness import rows

    attention = replace(CASE, bound="matrix", target=0.9, peers=(Peer(name="sdpa-flash", run=doubled),))
    ceilings = Ceilings(copy_bytes_per_s=1e9, matrix_flops_per_s=1e9)

    def row(case: Case, own: float, **others: float) -> Any:
        times = {"own": own, **others}
        found = {
            name: Measured(times={key: [ms, ms] for key in case.passes}, peaks=dict.fromkeys(case.passes, 0))
            for name, ms in times.items()
        }
        gate = Gate(passed=True, why="")
        options: Any = {"left_out": {}, "errors": {}, "gate": gate, "ceilings": ceilings, "machine": {}}
        return case, rows.measured("k", case, found, **options)[0]

    bandwidth_ms = CASE.amount("forward") / 1e9 * 1e3
    fine, slow = row(CASE, bandwidth_ms, torch=2 * bandwidth_ms), row(CASE, bandwidth_ms, torch=bandwidth_ms / 2)
    wasteful = row(replace(CASE, name="wasteful"), 2 * bandwidth_ms, torch=9 * bandwidth_ms)
    near = row(attention, 1.0, **{"sdpa-flash": 0.95, "flash-attn": 0.1})
    assert rows.marks(*fine) == {"torch x1": 2.0, "85% of copy bandwidth": pytest.approx(1 / 0.85)}
    assert rows.marks(*near) == {"sdpa-flash x0.9": pytest.approx(0.95 / 0.9)}
    assert rows.marks(replace(CASE, judged=("both",)), fine[1]) == {}
    lines = rows.table([fine, near, wasteful, slow], []).splitlines()
    assert ["short of torch x1: 0.50" in lines[0], "short of 85%" in lines[1]] == [True, True]
    assert all("meets" in line for line in lines[2:])


def test_code_is_known_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.code(tmp_path) == {"commit": None, "dirty": None}
    monkeypatch.setenv("PATH", "")
    assert machine.code(ROOT) == {"commit": None, "dirty": None}
    (tmp_path / "a.py").write_text("1")
    before = machine.digest(tmp_path)
    (tmp_path / "a.py").write_text("2")
    assert machine.digest(tmp_path) != before
    assert machine.slug("NVIDIA H200 (80 GB)") == "nvidia-h200-80-gb"


@pytest.mark.parametrize("minutes", ["-1", "0", "nan", "inf", "10000"])
def test_minutes_that_make_no_sense_are_refused(
    minutes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "Session", None)  # nothing may begin
    with pytest.raises(SystemExit, match="2"):
        command.main(["--minutes", minutes, "--out", str(tmp_path / "rows.jsonl")])
    assert "--minutes must be above 0 and below 10000, got" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_where_no_rows_can_be_written_is_said_before_anything_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "Session", None)
    (tmp_path / "file").write_text("")
    for out, why in ((tmp_path, "Is a directory"), (tmp_path / "file" / "rows.jsonl", "Not a directory|File exists")):
        with pytest.raises(SystemExit, match="2"):
            command.main(["--out", str(out)])
        assert re.search(f"--out: rows cannot be written to {out}: ({why})\n", capsys.readouterr().err)


def test_a_command_that_is_ended_takes_its_tests_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "kernels" / "ops"
    folder.mkdir(parents=True)
    (folder / "test_swiglu.py").write_text(
        "import os, pathlib, time\n"
        "def test_long():\n"
        f"    pathlib.Path({str(tmp_path)!r}, 'part').write_text(str(os.getpid()))\n"
        f"    os.rename({str(tmp_path / 'part')!r}, {str(tmp_path / 'pid')!r})\n"
        "    time.sleep(300)\n"
    )
    code = (
        "import sys; from pathlib import Path; from runner.kernels.bench import __main__ as command; "
        f"command.KERNELS = Path({str(tmp_path)!r}) / 'kernels'; "
        f"sys.exit(command.main(['--kernel', 'swiglu', '--out', {str(tmp_path / 'rows.jsonl')!r}]))"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, stdout=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "pid").exists() and time.monotonic() < end and running.poll() is None:
            time.sleep(0.05)
        inside = int((tmp_path / "pid").read_text())
        running.terminate()
        ended = running.wait(timeout=30)
        with pytest.raises(ProcessLookupError):
            os.kill(inside, signal.SIGKILL)
        assert ended == 143
    finally:
        running.kill()
        running.wait()


@pytest.mark.slow
def test_the_command_on_a_cpu_claims_nothing(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    out = tmp_path / "rows.jsonl"
    words = [sys.executable, "-m", "runner.kernels.bench", "--kernel", "swiglu", "--out", str(out), "--minutes", "3"]
    without = "import sys; [sys.modules.__setitem__(name, None) for name in ('ray', 'pydantic', 'peft')]\n"
    (tmp_path / "sitecustomize.py").write_text(without)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert (row["measured"], row["why"], row["gate_passed"]) == (False, "no GPU", True)
    assert "tests passed" in row["gate"]
    assert not {"median_ms", "ratio", "share"} & set(row)
