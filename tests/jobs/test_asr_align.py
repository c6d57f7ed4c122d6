"""The real job on the quickstart's small model: where words are, what stops one recording, the same bytes always."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from runner.execution.order import JobFunction
from runner.jobs import asr_align
from tests.asr.test_textgrid import parsed
from tests.jobs.helpers import CLIPS, Fields, Ran, apply, clips, manifest, ran, spec, transcribe
from tests.jobs.pools import watching

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

WINDOW = {"length_s": 5.0, "context_s": 1.0}
SOME = ("wav-16k.wav", "wav-22k.wav", "long-90s.opus", "too-short.wav", "near-silence.flac", "mp3-44k.mp3")


def align(folder: Path, rows: list[Fields], *, job: JobFunction | None = None, **fields: Any) -> Ran:
    data = {"manifest": manifest(folder, rows)}
    return transcribe(folder, job=job, kind="asr-align", **{"data": data, "window": WINDOW, **fields})


def lines(found: Ran) -> list[Fields]:
    return [json.loads(line) for line in (found.files / "alignments.jsonl").read_bytes().splitlines()]


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    rows = [*clips(*SOME), {**clips("wav-48k.wav")[0], "text": None}, {**clips("wav-16k.wav")[0], "id": "99"}]
    rows[-1] |= {"text": "josé contou a chave hoje e disse que não havia pão " * 9}
    return align(tmp_path_factory.mktemp("align"), rows, outputs=["srt", "vtt", "ctm", "textgrid"])


def test_each_recording_has_its_status_and_class(some: Ran) -> None:
    assert (some.result.action, some.result.exit_code) == ("created", 0)
    odd = {"23-near-silence": ("empty", None), "24-too-short": ("too_short", "too_short")}
    odd |= {"05-wav-48k": ("unaligned", "no_text"), "99": ("unaligned", "text_too_long")}
    for row in lines(some):
        error = row["error"] and row["error"]["class"]
        assert (row["status"], error) == odd.get(row["id"], ("ok", None)), row["id"]
        assert bool(row["words"]) == (row["status"] == "ok")
    metrics = some.manifest["metrics"]
    assert (metrics["files"], metrics["ok"], metrics["empty"], metrics["failed"]) == (8, 4, 1, 3)
    assert metrics["errors"] == {"no_text": 1, "text_too_long": 1, "too_short": 1}
    assert metrics["words"] == sum(len(row["words"]) for row in lines(some))
    assert metrics["wildcard_words"] == 0


def test_every_word_of_the_text_has_times_in_order(some: Ran) -> None:
    texts = {row["id"]: row["text"] for row in clips()}
    for row in lines(some):
        if row["status"] != "ok":
            continue
        assert [word["word"] for word in row["words"]] == texts[row["id"]].split()
        times = [time for word in row["words"] for time in (word["start"], word["end"])]
        assert times == sorted(times)
        assert 0 <= times[0] < times[-1] <= row["duration_s"]
        for word in row["words"]:
            assert "".join(char["char"] for char in word["chars"]) == word["word"]
            assert word["start"] == word["chars"][0]["start"] < word["chars"][-1]["end"] == word["end"]
            assert word["confidence"] == pytest.approx(np.exp(word["score"]), abs=1e-3)
        assert row["confidence"] > 0.8


def test_the_words_of_a_long_recording_are_where_they_are_said(some: Ran) -> None:
    (row,) = [row for row in lines(some) if row["id"] == "26-long-90s"]
    assert len(row["words"]) > 150
    samples, rate = soundfile.read(CLIPS / "long-90s.opus", dtype="float32")
    for word in row["words"]:
        around = samples[max(0, int((word["start"] - 0.1) * rate)) : int((word["end"] + 0.1) * rate)]
        assert np.sqrt(np.mean(np.square(around))) > 0.003, word


def test_a_recording_in_windows_has_the_times_of_its_parts(tmp_path: Path, some: Ran) -> None:
    (whole,) = [row for row in lines(some) if row["id"] == "26-long-90s"]
    (clip,) = clips("long-90s.opus")
    breaks = [at for at in range(1, len(whole["words"])) if _gap(whole["words"], at) >= 0.3][:12]
    rows, expected = [], []
    for first, last in zip([0, *breaks], breaks, strict=False):
        part = whole["words"][first:last]
        text = " ".join(word["word"] for word in part)
        cut = {"start": max(0.0, part[0]["start"] - 0.15), "end": part[-1]["end"] + 0.15}
        rows.append({**clip, "id": str(first), "text": text, **cut})
        expected += part
    found = [word for row in lines(align(tmp_path, rows)) for word in row["words"]]
    assert [word["word"] for word in found] == [word["word"] for word in expected]
    off = [abs(a["start"] - b["start"]) for a, b in zip(found, expected, strict=True)]
    assert np.median(off) <= 0.02
    assert np.mean(np.array(off) <= 0.1) > 0.95


def _gap(words: list[Fields], at: int) -> float:
    return float(words[at]["start"] - words[at - 1]["end"])


def test_files_beside_are_whole(some: Ran) -> None:
    fine = [row for row in lines(some) if row["error"] is None]
    assert len(list(some.files.rglob("*.TextGrid"))) == len(list(some.files.rglob("*.srt"))) == len(fine)
    for row in fine:
        (path,) = some.files.rglob(f"{Path(row['path']).stem}.TextGrid")
        end, tiers = parsed(path.read_text("utf-8"))
        assert end == pytest.approx(row["duration_s"], abs=0.001)
        assert [text for _, _, text in tiers[0][1] if text] == row["text"].split()
        (marks,) = some.files.rglob(f"{Path(row['path']).stem}.ctm")
        assert [line.split()[4] for line in marks.read_text("utf-8").splitlines()] == row["text"].split()


def test_digits_get_their_time_with_and_without_words_for_them(tmp_path: Path) -> None:
    (clip,) = clips("vorbis-44k.ogg")
    assert clip["text"] == "o português comprou dez limões no jardim"
    written = {**clip, "text": "O português — comprou 10 limões no jardim."}
    (wild,) = lines(align(tmp_path, [written], name="wild"))
    (said,) = lines(align(tmp_path, [written], name="said", text={"language": "pt-BR"}))
    (plain,) = lines(align(tmp_path, [clip], name="plain"))
    names = ["O", "português", "comprou", "10", "limões", "no", "jardim."]
    assert [w["word"] for w in wild["words"]] == [w["word"] for w in said["words"]] == names
    assert wild["words"][3]["confidence"] is None
    assert (said["words"][3]["spoken"], said["words"][3]["confidence"] > 0.5) == ("dez", True)
    times = [(w["start"], w["end"]) for w in plain["words"]]
    assert [(w["start"], w["end"]) for w in said["words"]] == times
    (start, end), (known_start, known_end) = (wild["words"][3]["start"], wild["words"][3]["end"]), times[3]
    assert abs(start - known_start) <= 0.1
    assert abs(end - known_end) <= 0.1


def test_a_text_of_something_else_has_a_low_confidence(tmp_path: Path) -> None:
    right, other = clips("wav-16k.wav", "wav-22k.wav")
    wrong = {**right, "text": other["text"], "id": "wrong"}
    found = align(tmp_path, [wrong], gates={"min_confidence": 0.3})
    assert (found.result.action, found.result.exit_code) == ("quarantined", 3)
    assert lines(found)[0]["confidence"] < 0.1


def test_transcripts_of_another_job_are_texts(tmp_path: Path) -> None:
    rows = clips("wav-16k.wav", "near-silence.flac", "too-short.wav")
    texts = spec("texts", data={"manifest": manifest(tmp_path, rows)})
    times = spec("times", kind="asr-align", data={"manifest": "artifact:texts#transcripts.jsonl"})
    results, store = apply(tmp_path, texts, times)
    said, found = (ran(result, store) for result in results)
    (row,) = [row for row in lines(found) if row["status"] == "ok"]
    assert [word["word"] for word in row["words"]] == said.texts[row.get("id") or row["path"]].split()
    assert row["confidence"] > 0.8
    assert sorted(row["status"] for row in lines(found)) == ["empty", "ok", "too_short"]


def test_without_any_text_the_job_fails_at_once(tmp_path: Path) -> None:
    found = align(tmp_path, [{"audio": clips("wav-16k.wav")[0]["audio"]}])
    assert (found.result.action, found.result.failure) == ("failed", "DataInvalid")
    assert "none of the 1 recordings has a text" in found.result.message


def test_silence_with_a_text_is_unaligned(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "long.wav", np.zeros(16_000 * 12), 16_000)
    rows = [{"audio": f"{name}.wav", "text": text} for name in ("short", "long") for text in ("a casa", "")]
    found = align(tmp_path, [{**row, "id": str(i)} for i, row in enumerate(rows)], on_error="continue")
    assert [row["status"] for row in lines(found)] == ["unaligned", "empty", "unaligned", "empty"]
    assert lines(found)[0]["error"]["class"] == lines(found)[2]["error"]["class"] == "silent"


@pytest.mark.parametrize(("workers", "seconds", "stop_after"), [(1, 1000, None), (3, 5, None), (1, 4, 3)])
def test_the_same_bytes_whatever_the_batches_workers_and_interruptions(
    workers: int, seconds: int, stop_after: int | None, tmp_path: Path, some: Ran
) -> None:
    rows = clips(*SOME)
    first: list[tuple[int, int]] = []
    fields: Fields = {"batch": {"seconds": seconds}}
    if stop_after is not None:
        stopped = align(tmp_path, rows, job=watching(asr_align.run, first, stop_after=stop_after), **fields)
        assert stopped.result.action == "cancelled"
        assert first
    second: list[tuple[int, int]] = []
    job = watching(asr_align.run, second, backwards=True, workers=workers)
    found = align(tmp_path, rows, job=job, **fields)
    assert not set(first) & set(second)
    expected = [row for row in lines(some) if row["id"] not in {"99", "05-wav-48k"}]
    assert lines(found) == expected
