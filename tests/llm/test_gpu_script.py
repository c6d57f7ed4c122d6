"""The training benchmark for GPUs, tried on a CPU at a tiny size: rows are whole, and agree where they must."""

from __future__ import annotations

import pytest

from tests.gpu.llm_train import rows_of, shown


@pytest.mark.filterwarnings("ignore:.*autocast.*:UserWarning")
def test_packed_rows_of_ours_learn_what_a_plain_batch_does() -> None:
    ours, plain = (list(rows_of(name, "bf16", tiny=True, device="cpu")) for name in ("ours", "plain"))
    assert [row["length"] for row in ours] == [row["length"] for row in plain] == [16, 64]
    for a, b in zip(ours, plain, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-3)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=0.03)
        assert a["tokens_per_s"] > 0
        assert "attention: on" in a["notes"]["patches"]
        assert shown(a).startswith("ours     bf16")


def test_what_cannot_be_had_is_a_row_with_its_reason() -> None:
    (row,) = rows_of("unsloth", "nf4", tiny=True, device="cpu")
    assert row == {
        "contender": "unsloth",
        "precision": "nf4",
        "error": "ModuleNotFoundError: No module named 'unsloth'",
    }


def test_nf4_trains_packed() -> None:
    for row in rows_of("ours", "nf4", tiny=True, device="cpu"):
        assert 5 < row["loss"] < 8
        assert row["grad_norm"] > 0
