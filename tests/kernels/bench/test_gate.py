"""No time without a proof."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.kernels.bench.harness.gate import check, judged, run_tests, test_names
from runner.kernels.bench.rms_norm import CASES

CPU = torch.device("cpu")


def made_up(root: Path, body: str) -> None:
    """A checkout with one kernel's tests."""
    for folder in ("tests/kernels/ops", "tests/gpu"):
        (root / folder).mkdir(parents=True)
    (root / "tests/kernels/ops/test_some_op.py").write_text(body)


def test_tests_of_a_kernel_open_its_gate(tmp_path: Path) -> None:
    made_up(tmp_path, "def test_one(): pass\ndef test_two(): pass\n")
    gate = run_tests(["some_op"], root=tmp_path, seconds=120, gpu=False)["some_op"]
    assert gate.passed
    assert gate.why == "2 tests passed"


def test_a_test_that_fails_shuts_it_and_is_named(tmp_path: Path) -> None:
    made_up(tmp_path, "def test_one(): pass\ndef test_two(): assert False\n")
    gate = run_tests(["some_op"], root=tmp_path, seconds=120, gpu=False)["some_op"]
    assert not gate.passed
    assert gate.why == "tests failed: test_two"


def test_tests_that_do_not_end_shut_it_and_are_ended(tmp_path: Path) -> None:
    made_up(tmp_path, "import time\ndef test_one(): pass\ndef test_two(): time.sleep(600)\n")
    gate = run_tests(["some_op"], root=tmp_path, seconds=10, gpu=False)["some_op"]
    assert not gate.passed
    assert "did not end within 10 s" in gate.why


def test_no_tests_shut_it(tmp_path: Path) -> None:
    assert "checkout" in run_tests(["some_op"], root=tmp_path, seconds=10, gpu=True)["some_op"].why
    made_up(tmp_path, "import no_such_module\ndef test_one(): pass\n")
    gate = run_tests(["some_op"], root=tmp_path, seconds=120, gpu=False)["some_op"]
    assert not gate.passed
    assert gate.why.startswith("no test ran")


def test_each_kernel_is_judged_by_its_own_tests(tmp_path: Path) -> None:
    outcomes = {"test_a": "passed", "test_b": "failed", "test_c": "skipped", "test_d": "passed"}
    lines: list[dict[str, Any]] = [{"test": name, "outcome": word, "end": False} for name, word in outcomes.items()]
    lines.append({"collected": ["test_a", "test_b", "test_c", "test_d", "test_d"]})
    for ended, open_ones in ((True, {"test_a", "test_d"}), (False, {"test_a"})):  # one of two test_d was not reached
        found = {name for name in outcomes if judged({name}, lines, ended=ended, seconds=1, last="").passed}
        assert found == open_ones
    path = tmp_path / "test_x.py"
    path.write_text("def test_a(): pass\ndef helper(): pass\n")
    assert test_names(path) == {"test_a"}


def test_values_at_the_shape_itself_are_held_to_the_reference() -> None:
    case = CASES[0]
    inputs = case.make({"R": 5, "D": 100}, torch.bfloat16, CPU)
    gate, errors = check(case, inputs)
    assert gate.passed
    assert errors["own"] <= 2 * errors["reference"]
    wrong, _ = check(replace(case, own=lambda x, weight: case.reference(x, weight) * 1.05), inputs)
    assert not wrong.passed
    assert "error 5" in wrong.why
    nan, _ = check(replace(case, own=lambda x, weight: case.reference(x, weight) * float("nan")), inputs)
    assert not nan.passed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_gradient_that_is_wrong_is_seen_too(dtype: torch.dtype) -> None:
    case = replace(CASES[0], dtype=dtype)

    def no_gradient_for_the_weight(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return case.reference(x, weight.detach()) + 0 * weight

    gate, _ = check(replace(case, own=no_gradient_for_the_weight), case.make({"R": 5, "D": 64}, dtype, CPU))
    assert gate.why.startswith("value 2")
