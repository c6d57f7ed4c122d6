"""No time without a proof: a kernel's tests, in a process of their own, and its values at the very shape timed."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.kernels.bench.harness.case import Case, Inputs, leaves, outputs, own_copies

WORKERS = 4  # processes that share the GPU while tests run: most of their time is compiling


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Whether a kernel may be timed, and why."""

    passed: bool
    why: str


def run_tests(kernels: Sequence[str], *, root: Path, seconds: float, gpu: bool) -> dict[str, Gate]:
    """The gate of each kernel: its tests of tests/gpu on a GPU, else its tests through Triton's interpreter."""
    tests = {kernel: test_names(root / "tests" / "kernels" / "ops" / f"test_{kernel}.py") for kernel in kernels}
    files = ["tests/gpu/test_kernels.py"] if gpu else [f"tests/kernels/ops/test_{kernel}.py" for kernel in kernels]
    if not all((root / file).is_file() for file in files):
        return dict.fromkeys(kernels, Gate(passed=False, why="there are no tests here: run it from a checkout"))
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", __name__.replace("gate", "reporter")]
    if gpu:
        words += ["-k", " or ".join(sorted(set().union(*tests.values())))]
        words += ["-p", "xdist", "-n", str(WORKERS)] if importlib.util.find_spec("xdist") else []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.jsonl"
        ended, last = _run([*words, *files], root=root, report=report, seconds=seconds)
        lines = [json.loads(line) for line in report.read_text("utf-8").splitlines()] if report.is_file() else []
    return {kernel: judged(names, lines, ended=ended, seconds=seconds, last=last) for kernel, names in tests.items()}


def test_names(path: Path) -> set[str]:
    """The test functions of a file; none where there is no file."""
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


test_names.__test__ = False  # type: ignore[attr-defined]


def judged(names: set[str], lines: Sequence[Mapping[str, Any]], *, ended: bool, seconds: float, last: str) -> Gate:
    """What the outcomes of all tests say about the kernel that these `names` test."""
    collected = [name for line in lines for name in line.get("collected", ()) if name in names]
    own = [line for line in lines if line.get("test") in names]
    failed = sorted({line["test"] for line in own if line["outcome"] == "failed"})
    passed = sum(line["outcome"] == "passed" for line in own)
    if failed:
        return Gate(passed=False, why=f"tests failed: {', '.join(failed)}")
    if not ended and sum(not line["end"] for line in own) < max(len(collected), 1):
        why = f"tests did not end within {seconds:.0f} s: {passed} of {len(collected)} had passed"
        return Gate(passed=False, why=why)
    if not passed:
        return Gate(passed=False, why=f"no test ran: {last}")
    return Gate(passed=True, why=f"{passed} tests passed")


def _run(words: Sequence[str], *, root: Path, report: Path, seconds: float) -> tuple[bool, str]:
    """Whether it ended in time, and the last line it wrote."""
    paths = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "BENCH_REPORT": str(report)}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = (
        "1"  # of what else is installed, some warns, and warnings are errors
    )
    said = report.with_name("said.txt")
    with said.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            words, cwd=root, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(timeout=seconds)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has ended, its workers with it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = [line for line in said.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    return ended, lines[-1] if lines else "it said nothing"


def check(case: Case, inputs: Inputs) -> tuple[Gate, dict[str, float]]:
    """Own values and gradients at this shape against the reference in fp32 (fp64 for fp32), with the errors.

    As in the tests: the error must be under twice the one that the reference makes in the case's dtype.
    """
    exact = torch.float64 if case.dtype == torch.float32 else torch.float32
    truth, upstream = _values(case, case.reference, own_copies(inputs, exact), None)
    usual, _ = _values(case, case.reference, own_copies(inputs), upstream)
    theirs = [error(value, true) for value, true in zip(usual, truth, strict=True)]
    del usual
    ours, _ = _values(case, case.own, own_copies(inputs), upstream)
    mine = [error(value, true) for value, true in zip(ours, truth, strict=True)]
    floor = max(torch.finfo(case.dtype).eps / 2, 1e-6)
    wrong = [number for number, (a, b) in enumerate(zip(mine, theirs, strict=True)) if not a <= 2 * b + floor]
    why = f"value {wrong[0]}: error {mine[wrong[0]]:.2e}, torch's {theirs[wrong[0]]:.2e}" if wrong else "values agree"
    return Gate(passed=not wrong, why=why), {"own": max(mine), "reference": max(theirs)}


def _values(
    case: Case, function: Any, inputs: Inputs, upstream: list[Tensor] | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and gradients, for incoming gradients that are drawn unless they are given."""
    with torch.set_grad_enabled(case.gradients):
        ys = outputs(function(*inputs))
    if not case.gradients:
        return ys, []
    if upstream is None:
        upstream = [torch.randn_like(y).to(case.dtype) if y.ndim else torch.ones_like(y) for y in ys]
    into = [dy.to(y.dtype) for dy, y in zip(upstream, ys, strict=True)]
    gradients = torch.autograd.grad(ys, leaves(inputs), into)
    return [y.detach() for y in ys] + list(gradients), upstream


def error(value: Tensor, truth: Tensor) -> float:
    """Largest difference over the largest value of the truth; infinite where a value is not finite."""
    if not value.isfinite().all():
        return math.inf
    largest = truth.abs().max().item()
    return (value.to(truth.dtype) - truth).abs().max().item() / (largest or 1.0)
