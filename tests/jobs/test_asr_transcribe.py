"""The real job on the quickstart's small model: what it writes, what it counts, how it fails."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.jobs.helpers import CLIPS, Fields, Ran, apply, clips, manifest, ran, spec, transcribe

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

RATE = 16_000


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """All of the quickstart's clips with every kind of output, under gates."""
    folder = tmp_path_factory.mktemp("quickstart")
    return transcribe(
        folder,
        data={"manifest": manifest(folder, clips())},
        window={"length_s": 5.0},
        outputs=["srt", "vtt", "txt", "ctm"],
        decode={"timestamps": "char"},
        gates={"max_wer": 0.2, "max_failed_share": 0.1},
    )


def test_each_recording_has_its_status(quickstart: Ran) -> None:
    assert (quickstart.result.action, quickstart.result.exit_code) == ("created", 0)
    statuses = {row["id"]: row["status"] for row in quickstart.rows}
    odd = {"23-near-silence": "empty", "24-too-short": "too_short", "25-corrupt": "decode_error"}
    assert statuses == {row["id"]: odd.get(row["id"], "ok") for row in clips()}
    for row in quickstart.rows:
        assert (row["error"] is None) == (row["status"] in {"ok", "empty"})
        assert bool(row["text"]) == bool(row["words"]) == (row["status"] == "ok")


def test_words_lie_in_order_within_the_recording(quickstart: Ran) -> None:
    for row in quickstart.rows:
        times = [time for word in row["words"] for time in (word["start"], word["end"])]
        assert times == sorted(times)
        assert all(0 <= time <= row["duration_s"] + 0.02 for time in times), row["path"]
        assert " ".join(word["word"] for word in row["words"]) == row["text"]
        for word in row["words"]:
            assert 0 <= word["confidence"] <= 1
            assert "".join(char["char"] for char in word["chars"]) == word["word"]
            assert word["start"] <= word["chars"][0]["start"] <= word["chars"][-1]["end"] <= word["end"]


def test_words_are_where_they_are_said(quickstart: Ran) -> None:
    """Silence has no letters: no word of the 90 s recording lies in one of its pauses."""
    (row,) = [row for row in quickstart.rows if row["id"] == "26-long-90s"]
    samples, _ = soundfile.read(CLIPS / "long-90s.opus", dtype="float32")
    assert len(row["words"]) > 100
    for word in row["words"]:
        around = samples[max(0, int((word["start"] - 0.1) * RATE)) : int((word["end"] + 0.1) * RATE)]
        assert np.sqrt(np.mean(np.square(around))) > 0.003, word


def test_metrics_carry_their_counts(quickstart: Ran) -> None:
    metrics = quickstart.manifest["metrics"]
    counts = Counter(row["status"] for row in quickstart.rows)
    assert (metrics["files"], metrics["ok"], metrics["empty"], metrics["failed"]) == (26, 23, 1, 2)
    assert counts == {"ok": 23, "empty": 1, "too_short": 1, "decode_error": 1}
    assert metrics["failed_share"] == pytest.approx(2 / 26)
    assert metrics["errors"] == {"corrupt": 1, "too_short": 1}
    assert metrics["words"] == sum(len(row["text"].split()) for row in quickstart.rows)
    assert metrics["audio_s"] == pytest.approx(sum(row["duration_s"] for row in quickstart.rows if not row["error"]))
    assert metrics["windows"] > 40
    assert metrics["utterances_scored"] == 24
    wrong = metrics["wer_counts"]
    errors = wrong["substitutions"] + wrong["deletions"] + wrong["insertions"]
    assert metrics["wer"] == pytest.approx(errors / wrong["references"])
    assert 0 < metrics["cer"] < metrics["wer"] < 0.2
    assert metrics["wer_leaderboard"] <= metrics["wer"]
    assert len(metrics["normalisers"]) == 2


def test_gates_and_ledger_stand_in_the_manifest(quickstart: Ran) -> None:
    assert {gate["name"]: gate["passed"] for gate in quickstart.manifest["gates"]} == {
        "max_wer": True,
        "max_failed_share": True,
    }
    assert {line["what"] for line in quickstart.manifest["ledger"]} >= {"precision", "batching"}


def test_timings_are_a_record_and_no_file(quickstart: Ran) -> None:
    lines = [json.loads(line) for line in (quickstart.records / "timing.jsonl").read_text("utf-8").splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in quickstart.rows]
    assert all(set(line["timing_ms"]) == {"decode", "resample", "infer", "postprocess"} for line in lines)
    assert not (quickstart.files / "timing.jsonl").exists()


def beside(ran_: Ran, row: Fields, ending: str) -> Path:
    (found,) = ran_.files.rglob(f"{Path(row['path']).stem}.{ending}")
    return found


def test_every_recording_with_a_result_has_its_files(quickstart: Ran) -> None:
    fine = [row for row in quickstart.rows if row["error"] is None]
    assert len(list(quickstart.files.rglob("*.*"))) == 1 + 4 * len(fine)
    for row in fine:
        assert beside(quickstart, row, "txt").read_text("utf-8").strip() == row["text"]


@pytest.mark.parametrize(("ending", "mark"), [("srt", ","), ("vtt", ".")])
def test_subtitles_parse(quickstart: Ran, ending: str, mark: str) -> None:
    time = rf"(\d\d):(\d\d):(\d\d)\{mark}(\d{{3}})"
    for row in quickstart.rows:
        if row["error"]:
            continue
        text = beside(quickstart, row, ending).read_text("utf-8")
        assert text.startswith("WEBVTT\n") == (ending == "vtt")
        blocks = [block.splitlines() for block in text.removeprefix("WEBVTT\n").strip().split("\n\n") if block]
        said, last = [], 0
        for number, block in enumerate(blocks, start=1):
            if ending == "srt":
                assert block.pop(0) == str(number)
            found = re.fullmatch(rf"{time} --> {time}", block[0])
            assert found, block
            h, m, s, ms, *rest = map(int, found.groups())
            start = ms + 1000 * (s + 60 * (m + 60 * h))
            end = rest[3] + 1000 * (rest[2] + 60 * (rest[1] + 60 * rest[0]))
            assert last <= start < end
            last = end
            said += block[1:]
        assert " ".join(said) == row["text"]
        assert last <= round(1000 * row["duration_s"]) + 20


def test_time_marks_parse(quickstart: Ran) -> None:
    for row in quickstart.rows:
        if row["error"]:
            continue
        lines = beside(quickstart, row, "ctm").read_text("utf-8").splitlines()
        fields = [line.split(" ") for line in lines]
        assert [f[4] for f in fields] == row["text"].split()
        assert all(len(f) == 6 and f[1] == "1" and 0 <= float(f[5]) <= 1 for f in fields)
        assert [float(f[2]) for f in fields] == [word["start"] for word in row["words"]]


def test_each_channel_is_a_row_of_its_own(tmp_path: Path) -> None:
    rows = clips("stereo-dialogue.wav", "wav-22k.wav")
    found = transcribe(
        tmp_path, data={"manifest": manifest(tmp_path, rows)}, audio={"channels": "each"}, outputs=["txt", "ctm"]
    )
    mono, left, right = found.rows
    assert [row.get("channel") for row in found.rows] == [None, 0, 1]
    assert (left["text"], right["text"]) == ("josé dividiu os óculos sem pressa", "josé encontrou o lápis")
    assert right["words"][0]["start"] > left["words"][-1]["end"], "both channels run on one clock"
    assert mono["text"] == rows[0]["text"]
    names = sorted(path.name for path in found.files.rglob("*.txt"))
    assert names == ["stereo-dialogue.ch0.txt", "stereo-dialogue.ch1.txt", "wav-22k.txt"]
    (marks,) = found.files.rglob("stereo-dialogue.ch1.ctm")
    assert marks.read_text("utf-8").split()[1] == "2"
    assert found.manifest["metrics"]["utterances_scored"] == 1


def test_one_channel_can_be_taken(tmp_path: Path) -> None:
    data = {"manifest": manifest(tmp_path, clips("stereo-dialogue.wav"))}
    specs = [spec(side, data=data, audio={"channels": side}) for side in ("left", "right")]
    results, store = apply(tmp_path, *specs)
    texts = [ran(result, store).rows[0]["text"] for result in results]
    assert texts == ["josé dividiu os óculos sem pressa", "josé encontrou o lápis"]


def test_parts_of_a_recording_keep_its_clock(tmp_path: Path) -> None:
    (row,) = clips("stereo-dialogue.wav")
    samples, _ = soundfile.read(row["audio"])
    cut = round(float(np.flatnonzero(samples[:, 1])[0]) / RATE - 0.15, 2)  # in the pause of 0.3 s
    parts = [{"start": 0.0, "end": cut}, {"start": cut}, {"start": cut, "end": 99.0}, {"start": 50.0}, {"end": 0.01}]
    rows = [{"audio": row["audio"], "id": str(i), **part} for i, part in enumerate(parts)]
    found = transcribe(tmp_path, data={"manifest": manifest(tmp_path, rows)}, outputs=["srt"])
    first, second, beyond, after, short = found.rows
    assert first["text"].endswith(" dividiu os óculos sem pressa")
    assert second["text"] == "josé encontrou o lápis"
    assert (first["start"], first["end"], second["start"]) == (0.0, cut, cut)
    assert first["words"][-1]["end"] <= cut <= second["words"][0]["start"]
    assert (beyond["text"], beyond["words"]) == (second["text"], second["words"])
    assert (after["error"]["class"], short["error"]["class"]) == ("after_end", "too_short")
    assert (found.files / "clips").exists() is False
    assert len(list(found.files.rglob("*.srt"))) == 3


def test_what_is_no_readable_file_has_a_status(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "empty.wav").touch()
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "fine.wav").write_bytes((CLIPS / "wav-22k.wav").read_bytes())
    names = ("folder", "empty", "loop", "text", "missing", "fine")
    rows = [{"audio": f"{name}.wav", "text": "o cachorro não viu a lâmpada"} for name in names]
    found = transcribe(tmp_path, data={"manifest": manifest(tmp_path, rows)})
    classes = [row["error"] and row["error"]["class"] for row in found.rows]
    assert classes == ["not_a_file", "zero_bytes", "link_loop", "unsupported_format", "not_found", None]
    metrics = found.manifest["metrics"]
    assert (metrics["wer"], metrics["utterances_scored"], metrics["failed"]) == (0.0, 1, 5)


def test_on_error_fail_fails_after_the_others_are_done(tmp_path: Path) -> None:
    data = {"manifest": manifest(tmp_path, clips("wav-22k.wav", "corrupt.flac"))}
    found = transcribe(tmp_path, data=data, on_error="fail")
    assert (found.result.action, found.result.failure, found.result.exit_code) == ("failed", "DataInvalid", 1)
    assert found.result.message.startswith("1 of 2 recordings failed (1 corrupt) and on_error is 'fail'")
    kept = found.transcripts
    assert [row["status"] for row in found.rows] == ["ok", "decode_error"]
    assert found.result.artifact is None
    again = transcribe(tmp_path, data=data)
    assert (again.result.action, again.transcripts) == ("created", kept)


@pytest.mark.parametrize("on_error", ["continue", "fail"])
def test_nothing_but_failures_is_a_failure(on_error: str, tmp_path: Path) -> None:
    data = {"manifest": manifest(tmp_path, clips("too-short.wav", "corrupt.flac"))}
    found = transcribe(tmp_path, data=data, on_error=on_error)
    assert (found.result.action, found.result.exit_code) == ("failed", 1)
    assert "none of the 2 recordings" in found.result.message
    assert [row["status"] for row in found.rows] == ["too_short", "decode_error"]


def test_a_missed_gate_keeps_the_artifact_from_its_name(tmp_path: Path) -> None:
    data = {"manifest": manifest(tmp_path, [{**clips("wav-22k.wav")[0], "text": "outra coisa"}])}
    found = transcribe(tmp_path, data=data, gates={"max_wer": 0.5})
    assert (found.result.action, found.result.failure, found.result.exit_code) == ("quarantined", "GateFailed", 3)
    assert "max_wer" in found.result.message
    assert found.rows[0]["text"] == "o cachorro não viu a lâmpada"


NUMBERS = (("três", "3"), ("dez", "10"), ("às seis horas", "às 6h"))


def in_digits(text: str) -> str:
    """A sentence of the quickstart as people would write it."""
    for word, digits in NUMBERS:
        text = text.replace(word, digits)
    return text


def test_with_text_numbers_are_said_before_they_are_compared_with(tmp_path: Path) -> None:
    said = [row for row in clips() if in_digits(row["text"]) != row["text"] and "long" not in row["audio"]]
    written = [{**row, "text": in_digits(row["text"])} for row in said]
    rows = {"said": said, "raw": written, "written": written}
    made = {
        name: transcribe(
            tmp_path,
            name=name,
            data={"manifest": manifest(tmp_path, some, f"{name}.jsonl")},
            **({"text": {}} if name == "written" else {}),
        )
        for name, some in rows.items()
    }
    wer = {name: one.manifest["metrics"]["wer"] for name, one in made.items()}
    assert wer["written"] == wer["said"] < wer["raw"] - 0.1
    assert made["written"].manifest["metrics"]["text"][0] == "portuguese/1 pt-BR"
    assert made["written"].texts == made["said"].texts, "what the model says stays as it is"
    kept = transcribe(tmp_path, name="kept", data={"manifest": "raw.jsonl"}, text={"numbers": "keep"})
    assert kept.manifest["metrics"]["wer"] == wer["raw"]


def test_silence_yields_no_letters(tmp_path: Path) -> None:
    samples, _ = soundfile.read(CLIPS / "wav-16k.wav", dtype="float32")
    hush = np.zeros(RATE, np.float32)
    noise = (np.random.default_rng(0).standard_normal(RATE) * 10 ** (-70 / 20)).astype(np.float32)
    for name, sound in (("zeros", hush), ("faint", noise), ("between", np.concatenate([hush, samples, noise]))):
        soundfile.write(tmp_path / f"{name}.wav", sound, RATE, subtype="FLOAT")
    found = transcribe(tmp_path, data={"audio": ["*.wav"]})
    assert [(row["path"], row["status"]) for row in found.rows] == [
        ("between.wav", "ok"),
        ("faint.wav", "empty"),
        ("zeros.wav", "empty"),
    ]
    assert found.texts["between.wav"].startswith("josé contou")
    words = found.rows[0]["words"]
    assert 0.8 <= words[0]["start"] < words[-1]["end"] <= 1 + len(samples) / RATE + 0.2


def test_another_job_s_transcripts_are_a_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("wav-16k.wav", "flac-16k.flac"):
        (folder / name).write_bytes((CLIPS / name).read_bytes())
    first = transcribe(tmp_path, name="first", data={"audio": ["clips"]})
    assert [row["path"] for row in first.rows] == ["clips/flac-16k.flac", "clips/wav-16k.wav"]
    (tmp_path / "made.jsonl").write_bytes(first.transcripts)
    again = transcribe(tmp_path, name="again", data={"manifest": "made.jsonl", "root": "."}, precision="fp32")
    assert (again.result.action, again.texts) == ("created", first.texts)
    assert again.manifest["metrics"]["wer"] == 0.0, "its texts are the references"


def test_two_steps_of_one_file_where_the_second_needs_the_first(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").write_bytes((CLIPS / "wav-22k.wav").read_bytes())
    second = spec("second", data={"manifest": "artifact:first#transcripts.jsonl", "root": "."}, precision="fp32")
    results, store = apply(tmp_path, second, spec("first", data={"audio": ["clips"]}))
    assert [(r.name, r.action) for r in sorted(results, key=lambda r: r.name)] == [
        ("first", "created"),
        ("second", "created"),
    ]
    by_name = {r.name: ran(r, store) for r in results}
    assert by_name["second"].texts == by_name["first"].texts == {"clips/a.wav": "o cachorro não viu a lâmpada"}
    (source,) = [i for i in by_name["second"].manifest["inputs"] if i["field"] == "data.manifest"]
    assert source["ref"] == "artifact:first@v1#transcripts.jsonl"
    again, _ = apply(tmp_path, second, spec("first", data={"audio": ["clips"]}))
    assert {r.action for r in again} == {"reused"}


@pytest.mark.parametrize("timestamps", ["none", "word"])
def test_times_are_as_fine_as_asked_for(timestamps: str, tmp_path: Path) -> None:
    data = {"manifest": manifest(tmp_path, clips("wav-22k.wav"))}
    (row,) = transcribe(tmp_path, data=data, decode={"timestamps": timestamps, "beam_size": 4}).rows
    assert row["text"] == "o cachorro não viu a lâmpada"
    assert len(row["words"]) == (0 if timestamps == "none" else 6)
    assert not any("chars" in word for word in row["words"])
