"""The number format: what `auto` becomes, and that bf16 changes no text of the small real model's clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import precision
from runner.precision import choose
from runner.schema.errors import JobError
from tests.jobs.helpers import clips, manifest, transcribe

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # transformers leaves its JSON open


@pytest.mark.parametrize(
    ("wanted", "flags", "name"),
    [
        ("auto", {"avx512f"}, "fp32"),
        ("auto", {"avx512f", "amx_bf16"}, "bf16"),
        ("auto", {"avx512_bf16"}, "bf16"),
        ("fp32", {"amx_bf16"}, "fp32"),
        ("bf16", {"avx512f"}, "bf16"),
    ],
)
def test_cpus(wanted: precision.Wanted, flags: set[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cpu_flags", lambda: frozenset(flags))  # no machine has all of these
    assert choose(wanted, device="cpu").name == name


def test_fp16_is_for_gpus() -> None:
    with pytest.raises(JobError, match="precision 'fp16' is for GPUs"):
        choose("fp16", device="cpu")


def test_bf16_changes_no_text(tmp_path: Path) -> None:
    """Emulated where the CPU has no bf16: slower, the same numbers."""
    rows = manifest(tmp_path, clips())
    fp32, bf16 = (
        transcribe(tmp_path, name=name, precision=name, data={"manifest": rows}, window=WINDOW)
        for name in ("fp32", "bf16")
    )
    assert fp32.texts == bf16.texts
    ledger = {line["what"]: line["why"] for line in bf16.manifest["ledger"]}
    assert "windows computed again in fp32" in ledger["precision"]
    assert fp32.transcripts != bf16.transcripts, "confidences cannot all be equal: was bf16 used?"


WINDOW = {"length_s": 5.0, "context_s": 1.0}
