"""A folder of `Dataset.save_to_disk` through plan, job and store."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from tests.jobs.helpers import CLIPS, clips, transcribe

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

NAMES = ("wav-16k.wav", "flac-16k.flac", "mp3-16k.mp3")


def _save(folder: Path, *, embedded: bool) -> list[str]:
    """Save three clips of the quickstart; their texts."""
    rows = clips(*NAMES)
    values = [{"bytes": Path(r["audio"]).read_bytes() if embedded else None, "path": r["audio"]} for r in rows]
    data = datasets.Dataset.from_dict({"audio": values, "sentence": [r["text"] for r in rows], "client": [1, 2, 3]})
    if not embedded:
        data = datasets.Dataset.from_dict({"audio": [r["audio"] for r in rows], "sentence": data["sentence"]})
    else:
        data = data.cast_column("audio", datasets.Audio(sampling_rate=16_000))
    data.save_to_disk(folder)
    return [str(row["text"]) for row in rows]


@pytest.mark.parametrize("embedded", [True, False], ids=["bytes", "paths"])
def test_three_clips(tmp_path: Path, embedded: bool) -> None:
    _save(tmp_path / "data" / "speech", embedded=embedded)
    made = transcribe(tmp_path, data={"manifest": "data/speech"}, window={"length_s": 5.0}, gates={"max_wer": 0.5})
    assert (made.result.action, made.result.message) == ("created", "")
    ordered = [Path(row["audio"]).name for row in clips(*NAMES)]
    by_row = [f"data/speech/{number}{Path(name).suffix}" for number, name in enumerate(ordered)]
    names = by_row if embedded else ordered
    assert [row["path"] for row in made.rows] == names
    report = json.loads((made.records.parent / "report.json").read_text("utf-8"))
    assert [row[0] for row in report["tables"][0]["rows"]] == names, "the report calls them as the results do"
    assert (made.records.parent / "report.html").read_text("utf-8").count("<audio ") == 3, "and plays them"
    plain = transcribe(
        tmp_path, store="plain", data={"audio": [str(CLIPS / name) for name in NAMES]}, window={"length_s": 5.0}
    )
    said = {Path(row["path"]).name: row["text"] for row in plain.rows}
    assert [row["text"] for row in made.rows] == [said[name] for name in ordered]
    again = transcribe(tmp_path, data={"manifest": "data/speech"}, window={"length_s": 5.0}, gates={"max_wer": 0.5})
    assert again.result.action == "reused"
    assert not list((tmp_path / "store" / ".runs").rglob("recordings"))
