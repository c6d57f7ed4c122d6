"""Gates against metrics."""

from __future__ import annotations

from typing import Any

import pytest

from runner.plan.gates import check


@pytest.mark.parametrize(
    ("gates", "metrics", "passed"),
    [
        ({"max_wer": 0.1}, {"wer": 0.1}, True),
        ({"max_wer": 0.1}, {"wer": 0.11}, False),
        ({"min_confidence": 0.5}, {"confidence": 0.5}, True),
        ({"min_confidence": 0.5}, {"confidence": 0.4}, False),
        ({"max_wer": 0.1}, {}, False),
        ({"max_wer": 0.1}, {"wer": None}, False),
        ({"max_wer": 0.1}, {"wer": float("nan")}, False),
        ({"max_wer": 1}, {"wer": True}, False),
        ({"max_wer": 1}, {"wer": "0.1"}, False),
    ],
)
def test_one_gate(gates: dict[str, Any], metrics: dict[str, Any], passed: bool) -> None:
    (result,) = check(gates, metrics)
    assert result.passed is passed


def test_limits_left_out_are_no_gates() -> None:
    assert check({"max_wer": None}, {}) == ()


def test_texts_name_gate_limit_and_figure() -> None:
    missed, unknown, met = check({"max_wer": 0.05, "min_snr": 3, "max_cer": 1}, {"wer": 0.08, "cer": 0.5})
    assert str(missed) == "gate max_wer 0.05 not met: wer is 0.08"
    assert str(unknown) == "gate min_snr 3 not met: the run has no figure for 'snr'"
    assert str(met) == "gate max_cer 1 met: cer is 0.5"
