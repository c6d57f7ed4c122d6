"""The real job with a `streaming:` block: what it writes, what it counts, and that it is near what offline gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile

from runner.schema.errors import SpecError
from tests.asr.whisper import tiny_whisper
from tests.jobs.helpers import CLIPS, Fields, Ran, clips, manifest, transcribe

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

SHORT = ("wav-22k.wav", "flac-16k.flac", "stereo-dialogue.wav", "near-silence.flac", "too-short.wav", "corrupt.flac")


def streamed(folder: Path, rows: list[Fields], *, streaming: Fields | None = None, **fields: Any) -> Ran:
    return transcribe(folder, data={"manifest": manifest(folder, rows)}, streaming=streaming or {}, **fields)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Some clips, and some that cannot be heard."""
    return streamed(tmp_path_factory.mktemp("short"), clips(*SHORT), outputs=["srt", "txt"])


def test_each_recording_is_a_row_with_its_utterances(short: Ran) -> None:
    assert (short.result.action, short.result.exit_code) == ("created", 0)
    rows = {Path(row["path"]).name: row for row in short.rows}
    assert {name: row["status"] for name, row in rows.items()} == {
        **dict.fromkeys(SHORT[:3], "ok"),
        "near-silence.flac": "empty",
        "too-short.wav": "too_short",
        "corrupt.flac": "decode_error",
    }
    assert rows["wav-22k.wav"]["text"] == "o cachorro não viu a lâmpada"
    for row in rows.values():
        assert " ".join(word["word"] for word in row["words"]) == row["text"]
        if row["error"] is None:
            assert " ".join(segment["text"] for segment in row["segments"]) == row["text"]
            assert all(0 <= one["start"] < one["end"] <= row["duration_s"] + 0.02 for one in row["segments"])
            assert sum(row["stream"]["commit_latency_s"].values()) == sum(
                len(segment["committed"].split()) for segment in row["segments"]
            )
    assert (rows["near-silence.flac"]["segments"], rows["near-silence.flac"]["duration_s"]) == ([], 3.0)


def test_files_hold_no_clock_and_records_do(short: Ran) -> None:
    times = [json.loads(line) for line in (short.records / "timing.jsonl").read_text("utf-8").splitlines()]
    assert [sum(row["window_ms"].values()) > 0 for row in times[:3]] == [True] * 3
    speed = json.loads((short.records / "streaming.json").read_text("utf-8"))
    assert 0 < speed["real_time_factor"] == pytest.approx(speed["compute_s"] / speed["audio_s"], rel=0.01)
    assert speed["window_ms"]["p50"] <= speed["window_ms"]["p95"] <= speed["window_ms"]["max"]
    assert "_ms" not in short.transcripts.decode()
    assert {path.suffix for path in short.files.rglob("*.*")} == {".jsonl", ".srt", ".txt"}


def test_metrics_are_of_the_sound_alone(short: Ran) -> None:
    metrics = short.manifest["metrics"]
    assert metrics["utterances"] == sum(len(row.get("segments", ())) for row in short.rows)
    assert 0.5 <= metrics["commit_latency_p50_s"] <= 1.0
    assert metrics["commit_latency_p50_s"] <= metrics["commit_latency_p95_s"] <= metrics["commit_latency_max_s"]
    assert metrics["shown_latency_p50_s"] < metrics["commit_latency_p50_s"], "a word is shown before it is settled"
    assert metrics["churn"] == metrics["partial_words_changed"] / metrics["partial_words"]
    assert metrics["committed_wer"] < 0.2
    assert "offline_wer" not in metrics
    (batching,) = [line for line in short.manifest["ledger"] if line["what"] == "batching"]
    assert not batching["applied"]
    report = json.loads((short.files.parent / "report.json").read_text("utf-8"))
    assert "Streaming" in [table["title"] for table in report["tables"]]


def test_a_second_time_gives_the_same_bytes(short: Ran, tmp_path: Path) -> None:
    again = streamed(tmp_path, clips(*SHORT), outputs=["srt", "txt"], batch={"files": 1})
    assert again.transcripts == short.transcripts


def test_the_long_file_is_within_a_point_of_offline(tmp_path: Path) -> None:
    """With 2 s of buffer and 0.5 s of look-ahead, the defaults."""
    found = streamed(tmp_path, clips("long-90s.opus"), streaming={"compare": True})
    metrics = found.manifest["metrics"]
    assert metrics["wer_over_offline"] == pytest.approx(metrics["wer"] - metrics["offline_wer"])
    assert metrics["wer_over_offline"] <= 0.01
    assert 0 < metrics["wer_to_offline"] < 0.15
    assert metrics["wer_to_offline_counts"]["references"] > 200
    (row,) = found.rows
    assert len(row["segments"]) == 5
    assert {segment["ended_by"] for segment in row["segments"]} == {"longest", "pause"}
    assert any(s["committed"] != s["text"] for s in row["segments"])


def test_utterances_end_where_the_spec_says(tmp_path: Path) -> None:
    ends = {"after_text_s": 0.4, "longest_s": 5.0}
    (row,) = streamed(tmp_path, clips("long-90s.opus"), streaming={"endpoint": ends, "refine": False}).rows
    assert len(row["segments"]) > 15
    assert max(one["end"] - one["start"] for one in row["segments"]) < 5.6


def test_a_stretch_keeps_the_file_s_clock(tmp_path: Path) -> None:
    (row,) = clips("stereo-dialogue.wav")
    second = round(soundfile.info(CLIPS / "stereo-dialogue.wav").duration / 2, 2)
    found = streamed(tmp_path, [row, {**row, "start": second}], audio={"channels": "right"})
    whole, part = found.rows
    assert whole["text"] == part["text"] == "josé encontrou o lápis"
    for one, other in zip(whole["words"], part["words"], strict=True):
        assert one["start"] == pytest.approx(other["start"], abs=0.04)
    assert part["segments"][0]["start"] >= second


def test_a_sequence_model_is_refused(tmp_path: Path) -> None:
    model = tiny_whisper.save(tmp_path / "model")
    found = streamed(tmp_path, clips("wav-16k.wav"), model={"id": str(model)})
    assert found.result.exit_code == 1
    assert "streaming needs a CTC model, and whisper hears whole sentences: remove streaming" in found.result.message


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"chunk_s": 0.01}, "streaming.chunk_s: expected a number of seconds from 0.05 to 10"),
        ({"chunk_s": 2.0, "endpoint": {"longest_s": 3.0}}, "endpoint.longest_s must be at least two of chunk_s"),
        ({"endpoint": {"silence": 2.0}}, "unknown field 'silence'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_the_spec(block: Fields, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        streamed(tmp_path, clips("wav-16k.wav"), streaming=block)
    assert message in str(error.value)
