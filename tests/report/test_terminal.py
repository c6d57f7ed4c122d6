from __future__ import annotations

from pathlib import Path

import pytest

from runner.report.terminal import show
from tests.report.reports import HOSTILE, hostile, report, table

MANIFEST = {
    "name": "clips",
    "version": "v1",
    "fingerprint": "ab" * 32,
    "digest": "cd" * 32,
    "files": [{"path": "files/transcripts.jsonl", "size": 1234}],
    "linked_from": None,
}


def test_it_says_what_the_page_says() -> None:
    text = show(MANIFEST, report().to_json())
    assert text.startswith("clips@v1  asr-transcribe  published\n")
    for said in (
        "note: synthetic speech",
        "  wer         0.25, 95% interval 0.125 to 0.5\n",
        "max_wer  limit 0.3  value 0.25  met",
        "o cão dorme",
        "infer   1 min 35 s",
        "precision    applied (preferred)  parity error 0.001  2x  bf16 in hardware",
        "files/transcripts.jsonl  1.23 kB",
        "packages  torch 2.13.0",
    ):
        assert said in text


def test_long_tables_end_with_a_count() -> None:
    rows = [(f"{n}.wav", "ok", "x" * 500, 0.0) for n in range(3000)]
    text = show(MANIFEST, report(tables=(table(rows),)).to_json())
    assert "... and 2,980 more rows in report.html" in text
    assert max(map(len, text.splitlines())) < 200


@pytest.mark.parametrize("text", HOSTILE)
def test_names_and_texts_cannot_steer_the_terminal(text: str, tmp_path: Path) -> None:
    shown = show(MANIFEST, hostile(text, tmp_path).to_json())
    assert not {c for c in shown if ord(c) < 32} - {"\n"}
    assert "\u202e" not in shown
