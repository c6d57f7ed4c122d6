"""What a result calls its recordings: the same on every machine, and always text that can be written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.jobs.helpers import CLIPS, manifest, transcribe

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def test_recordings_above_the_manifest_are_shown_without_the_host(tmp_path: Path) -> None:
    for place in ("here", "there"):
        folder = tmp_path / place / "sub"
        folder.mkdir(parents=True)
        (tmp_path / place / "clips").mkdir()
        shutil.copy(CLIPS / "wav-16k.wav", tmp_path / place / "clips" / "a.wav")
        data = {"manifest": manifest(folder, [{"audio": "../clips/a.wav"}])}
        found = transcribe(folder, data=data, outputs=["srt", "ctm"], store="../../store")
        assert [row["path"] for row in found.rows] == ["../clips/a.wav"]
        names = sorted(path.relative_to(found.files).as_posix() for path in found.files.rglob("*") if path.is_file())
        assert names == ["_/clips/a.ctm", "_/clips/a.srt", "transcripts.jsonl"]
        assert not [p for p in found.files.rglob("*") if p.is_file() and str(tmp_path).encode() in p.read_bytes()]
    assert found.result.action == "reused"


@pytest.mark.parametrize("how", ["audio", "manifest"])
def test_a_name_that_is_not_utf8_is_written_escaped(tmp_path: Path, how: str) -> None:
    name = os.fsdecode(b"ma\xe7\xe3.wav")  # Latin-1
    shutil.copy(CLIPS / "wav-22k.wav", tmp_path / name)
    rows = json.dumps({"audio": name, "text": "o cachorro não viu a lâmpada"})
    (tmp_path / "m.jsonl").write_text(rows)
    data = {"audio": ["*.wav"]} if how == "audio" else {"manifest": "m.jsonl"}
    found = transcribe(tmp_path, data=data, outputs=["srt", "ctm"])
    assert (found.result.action, found.result.message) == ("created", "")
    assert found.texts == {r"ma\xe7\xe3.wav": "o cachorro não viu a lâmpada"}
    names = sorted(path.name for path in found.files.iterdir())
    assert names == [r"ma\xe7\xe3.ctm", r"ma\xe7\xe3.srt", "transcripts.jsonl"]
    assert transcribe(tmp_path, data=data, outputs=["srt", "ctm"]).result.action == "reused"
