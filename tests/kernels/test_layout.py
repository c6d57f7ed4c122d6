"""Every kernel has its parts: reference, public function, test, place among the tests for GPUs; and loads anywhere."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runner.kernels import launch
from runner.kernels.launch import divide_up, power_of_two, use_triton

ROOT = Path(__file__).parents[2]
OPS = sorted(path.stem for path in (ROOT / "kernels" / "ops").glob("[!_]*.py"))
FILES = sorted((ROOT / "kernels").rglob("*.py"))


@pytest.mark.parametrize("op", OPS)
def test_an_op_has_its_parts(op: str) -> None:
    code = (ROOT / "kernels" / "ops" / f"{op}.py").read_text(encoding="utf-8")
    functions = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    assert {op, "reference"} <= functions
    assert (ROOT / "tests" / "kernels" / "ops" / f"test_{op}.py").is_file()
    assert f"tests.kernels.ops.test_{op} import *" in (ROOT / "tests" / "gpu" / "test_kernels.py").read_text("utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_functions_that_are_not_triton_have_types_and_ops_do_not_import_ops(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and "jit" not in [ast.unparse(word) for word in node.decorator_list]:
            words = [*node.args.args, *node.args.kwonlyargs]
            assert node.returns is not None, node.name
            assert all(word.annotation or word.arg in {"self", "cls"} for word in words), node.name
        if isinstance(node, ast.ImportFrom) and path.parent.name == "ops":
            assert not str(node.module).startswith("runner.kernels.ops"), ast.unparse(node)


def test_ops_load_and_work_without_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        + "".join(f"import runner.kernels.ops.{op}\n" for op in OPS)
        + "import torch\nfrom runner.kernels.ops.rms_norm import rms_norm\n"
        "x = torch.ones(2, 8, requires_grad=True)\nrms_norm(x, torch.ones(8)).sum().backward()\nprint(x.grad.shape)\n"
        "try:\n    rms_norm(x, torch.ones(8), with_triton=True)\nexcept RuntimeError as e:\n    print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("torch.Size([2, 8])\nTriton was asked for and is not installed")


def test_a_cpu_takes_the_reference_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "triton", object())
    assert not use_triton(torch.ones(1), None)
    assert use_triton(torch.ones(1), True)
    with pytest.raises(RuntimeError, match="float64"):
        use_triton(torch.ones(1, dtype=torch.float64), True)


def test_sizes_of_blocks() -> None:
    assert [power_of_two(n) for n in (0, 1, 2, 3, 64, 65)] == [1, 1, 2, 4, 64, 128]
    assert [divide_up(n, 4) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
    for columns in (1, 63, 1000, 4096, 16384):
        rows, block = launch.tile(columns)
        assert rows * block <= 4096
        assert block >= min(columns, 4096)
