"""The training benchmark for GPUs, tried on a CPU at a tiny size: rows are whole, and agree where they must."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from tests.gpu import llm_train
from tests.gpu.llm_shapes import TINY, saved
from tests.gpu.llm_train import longest, rows_of, shown


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
        "part": "lengths",
        "error": "ModuleNotFoundError: No module named 'unsloth'",
    }


def test_nf4_trains_packed() -> None:
    for row in rows_of("ours", "nf4", tiny=True, device="cpu"):
        assert 5 < row["loss"] < 8
        assert row["grad_norm"] > 0


@pytest.mark.filterwarnings("ignore:.*autocast.*:UserWarning")
@pytest.mark.parametrize("contender", ["ours", "plain"])
def test_one_long_document_is_tried_until_the_last_length(contender: str) -> None:
    (row,) = rows_of(contender, "bf16", part="longest", tiny=True, device="cpu")
    assert (row["longest"], row["too_long"]) == (128, None)
    assert 5 < row["loss"] < 8
    assert shown(row).endswith("128 tokens of one document, 0.0 GB; longer ones than 128 were not tried")


def test_the_longest_document_is_the_last_that_memory_and_time_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    def fits(most: int) -> Any:
        return lambda length, *_: {"peak_gb": length / 1e3} if length <= most else None

    far = time.monotonic() + 100
    row = longest(fits(100), first=32, last=512, ends=far)
    assert row == {
        "longest": 64, "too_long": 128, "ended": "128 tokens ran out of memory", "peak_gb": 0.064, "tokens": 64,
    }  # fmt: skip
    assert longest(fits(0), first=32, last=512, ends=far)["longest"] == 0

    def slow(*_: int) -> dict[str, float]:
        time.sleep(0.2)
        return {}

    monkeypatch.setattr(llm_train, "LEAST_S", 0.1)
    row = longest(slow, first=32, last=512, ends=time.monotonic() + 0.5)
    assert (row["longest"], row["too_long"]) == (32, None)
    assert row["ended"].startswith("64 tokens were not begun: about 1 s are needed")


def test_out_of_memory_is_a_row_and_the_next_length_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    real = llm_train.timed

    def scarce(model: Any, fields: Any, **more: Any) -> Any:
        if fields["input_ids"].shape[1] == 16:
            raise torch.OutOfMemoryError("no")
        return real(model, fields, **more)

    monkeypatch.setattr(llm_train, "timed", scarce)
    first, second = rows_of("plain", "bf16", tiny=True, device="cpu")
    assert first["error"] == "out of memory"
    assert second["loss"] > 0


def test_what_no_longer_fits_is_not_begun() -> None:
    rows = list(rows_of("plain", "bf16", tiny=True, device="cpu", ends=time.monotonic()))
    assert [row["length"] for row in rows] == [16, 64]
    assert {row["error"] for row in rows} == {"not begun: about 10 s are needed, and 0 s are left"}
    what = {"contender": "plain", "precision": "bf16", "part": "lengths"}
    (row,) = llm_train._rows(what, ends=time.monotonic(), size={})
    assert row == what | {"error": "not begun: about 30 s are needed, and 0 s are left"}


def test_the_folder_for_a_loader_has_a_tokenizer_of_as_many_words(tmp_path: Path) -> None:
    saved(TINY, "cpu", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == LlamaForCausalLM.from_pretrained(tmp_path).config.vocab_size == 512
    assert tokenizer("w7")["input_ids"] == [7]
