"""The number format: what `auto` becomes, and that bf16 changes no text of the small real model's short clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.asr import precision
from runner.asr.precision import choose
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


def test_bf16_changes_no_short_text(tmp_path: Path) -> None:
    """Emulated where the CPU has no bf16: slower, the same numbers. The 90 s recording is known to change."""
    rows = manifest(
        tmp_path, [row for row in clips() if "noise-5db" not in row["audio"] and "long-90s" not in row["audio"]]
    )
    made = [
        transcribe(tmp_path, name=name, precision=name, data={"manifest": rows}, window=WINDOW).texts
        for name in ("fp32", "bf16")
    ]
    changed = {name: (text, made[1][name]) for name, text in made[0].items() if text != made[1][name]}
    assert not changed


WINDOW = {"length_s": 5.0, "context_s": 1.0}
