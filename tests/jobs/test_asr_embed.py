"""The real job on the quickstart's small model: vectors by input, of any length, the same bytes always."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from pyarrow import parquet

from runner.context import Context, Result
from runner.execution.order import JobFunction
from runner.jobs import asr_embed
from runner.schema.data import AudioData
from runner.schema.errors import PlanError, SpecError
from runner.schema.jobs.asr_embed import AsrEmbed
from runner.schema.model import Model
from tests.e2e.helpers import RUNNER, environment
from tests.jobs.helpers import CLIPS, Fields, Ran, clips, manifest, spec, transcribe
from tests.jobs.pools import watching

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

WINDOW = {"length_s": 5.0, "context_s": 1.0}
SOME = ("wav-16k.wav", "wav-22k.wav", "long-90s.opus", "too-short.wav", "near-silence.flac", "mp3-44k.mp3")
HIDDEN = 128


def embed(folder: Path, rows: list[Fields], *, job: JobFunction | None = None, **fields: Any) -> Ran:
    data = {"manifest": manifest(folder, rows)}
    return transcribe(folder, job=job, kind="asr-embed", **{"data": data, "window": WINDOW, "dtype": "fp32", **fields})


def lines(found: Ran) -> list[Fields]:
    return [json.loads(line) for line in (found.files / "index.jsonl").read_bytes().splitlines()]


def of(found: Ran, row: Fields) -> NDArray[np.floating]:
    """A recording's vectors, as the index says where they are."""
    parts = []
    for piece in row["pieces"]:
        path = found.files / piece["file"]
        if path.suffix == ".npy":
            whole = np.load(path, mmap_mode="r")
        else:
            column = parquet.read_table(path)["embedding"].combine_chunks()
            whole = column.flatten().to_numpy().reshape(len(column), -1)
        parts.append(whole[piece["row"] : piece["row"] + piece["rows"]])
    return np.concatenate(parts)


def everything(found: Ran) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(found.files.iterdir())}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Every frame of two layers, in small files."""
    folder = tmp_path_factory.mktemp("frames")
    return embed(folder, clips(*SOME), pooling="none", layers=[1, -1], format="npy", shard_mb=1)


def test_each_recording_has_its_status(frames: Ran) -> None:
    assert (frames.result.action, frames.result.exit_code) == ("created", 0)
    odd = {"23-near-silence": "empty", "24-too-short": "too_short"}
    for row in lines(frames):
        assert row["status"] == odd.get(row["id"], "ok")
        assert bool(row["pieces"]) == (row["status"] == "ok")
        assert (row["error"] is None) == (row["status"] in {"ok", "empty"})
    metrics = frames.manifest["metrics"]
    assert (metrics["files"], metrics["ok"], metrics["empty"], metrics["failed"]) == (6, 4, 1, 1)
    assert metrics["vectors"] == sum(piece["rows"] for row in lines(frames) for piece in row["pieces"])
    assert (metrics["dimension"], metrics["layers"], metrics["pooling"]) == (2 * HIDDEN, [1, 3], "none")


def test_files_are_bounded_and_described(frames: Ran) -> None:
    shards = sorted(frames.files.glob("embeddings-*.npy"))
    about = json.loads((frames.files / "embeddings.json").read_text("utf-8"))
    assert about["files"] == [path.name for path in shards]
    assert len(shards) > 3
    assert all(path.stat().st_size <= 1_000_000 + 128 for path in shards)
    assert (about["dimension"], about["dtype"], about["frame_s"]) == (2 * HIDDEN, "float32", 0.02)
    assert [(p["layers"], p["from"], p["to"]) for p in about["parts"]] == [([1], 0, 128), ([3], 128, 256)]


def test_a_recording_in_windows_has_all_its_frames(frames: Ran, tmp_path: Path) -> None:
    """90 s in windows of 5 s against windows of 30 s: frames lie at the same places and are nearly the same."""
    (row,) = [row for row in lines(frames) if row["id"] == "26-long-90s"]
    vectors = of(frames, row)
    samples = round(row["duration_s"] * 16_000)
    assert len(vectors) == (samples - 432) // 320 + 1 or abs(len(vectors) - samples // 320) <= 2
    found = embed(
        tmp_path, clips("long-90s.opus"), pooling="none", layers=[1, -1], window={"length_s": 30.0}, format="npy"
    )
    (other,) = lines(found)
    long = of(found, other)
    assert long.shape == vectors.shape
    heard = np.abs(vectors).sum(axis=1) > 0
    assert heard.sum() == row["heard_frames"] < len(vectors)
    assert np.array_equal(heard, np.abs(long).sum(axis=1) > 0)
    a, b = vectors[heard, :HIDDEN], long[heard, :HIDDEN]
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert np.median(cosine) > 0.98


@pytest.mark.parametrize("pooling", ["mean", "std", "mean_std", "max"])
def test_pools_are_of_the_frames_that_are_heard(pooling: str, frames: Ran, tmp_path: Path) -> None:
    found = embed(tmp_path, clips(*SOME), pooling=pooling, layers=[1, -1])
    for row, whole in zip(lines(found), lines(frames), strict=True):
        assert (row["status"], row["heard_frames"]) == (whole["status"], whole["heard_frames"])
        if row["status"] != "ok":
            continue
        every = of(frames, whole).astype(np.float64)
        heard = every[np.abs(every).sum(axis=1) > 0]
        assert len(heard) == row["heard_frames"]
        each = {"mean": heard.mean(axis=0), "std": heard.std(axis=0), "max": heard.max(axis=0)}
        expected = np.concatenate([each[name] for name in pooling.split("_")])
        (vector,) = of(found, row)
        np.testing.assert_allclose(vector, expected, atol=1e-4)


@pytest.mark.parametrize("words", ["heard", "given"])
def test_words_are_means_of_their_frames(words: str, frames: Ran, tmp_path: Path) -> None:
    rows = clips(*SOME)
    found = embed(tmp_path, rows, pooling="word", words=words, layers=[1, -1])
    table = parquet.read_table(next(found.files.glob("*.parquet"))).drop_columns("embedding").to_pylist()
    assert len(table) == found.manifest["metrics"]["vectors"]
    seen = 0
    for row, whole, clip in zip(lines(found), lines(frames), rows, strict=True):
        assert row["status"] == whole["status"]
        if row["status"] != "ok":
            assert row["pieces"] == []
            continue
        said = [word["word"] for word in row["words"]]
        if words == "given":
            assert said == clip["text"].split()
        vectors, every = of(found, row), of(frames, whole)
        assert len(vectors) == len(said) > 3
        for vector, word in zip(vectors, row["words"], strict=True):
            span = slice(round(word["start"] / 0.02), round(word["end"] / 0.02))
            np.testing.assert_allclose(vector, every[span].mean(axis=0), atol=1e-4)
        keys = [(k["word"], k["word_start"], k["word_end"], k["id"]) for k in table[seen : seen + len(said)]]
        assert keys == [(word["word"], word["start"], word["end"], row["id"]) for word in row["words"]]
        seen += len(said)


def test_text_goes_with_given_words_alone(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="text says how given words are said"):
        embed(tmp_path, clips(*SOME), pooling="word", text={})


def test_with_text_digits_are_words(tmp_path: Path) -> None:
    rows = clips("wav-24bit-44k.wav")
    digits = [{**row, "text": row["text"].replace("três", "3")} for row in rows]
    assert digits != rows
    words: Fields = {"pooling": "word", "words": "given"}
    said = embed(tmp_path, rows, **words)
    written = embed(tmp_path, digits, text={}, **words)
    (a,), (b,) = lines(said), lines(written)
    assert [word["word"].replace("três", "3") for word in a["words"]] == [word["word"] for word in b["words"]]
    assert [{**word, "word": ""} for word in a["words"]] == [{**word, "word": ""} for word in b["words"]]
    assert of(said, a).tobytes() == of(written, b).tobytes()
    large = [{**row, "text": row["text"].replace("três", "888888888888888")} for row in rows]
    (wild,), (long,) = (lines(embed(tmp_path, large, **words, **text)) for text in ({}, {"text": {}}))
    assert wild["status"] == "ok" and long["error"]["class"] == "text_too_long"


def test_a_text_that_is_not_there_or_does_not_fit_is_one_recording_s_trouble(tmp_path: Path) -> None:
    fine, none, long = (clips(name)[0] for name in ("wav-16k.wav", "wav-22k.wav", "wav-48k.wav"))
    rows = [fine, {**none, "text": None}, {**long, "text": "muito " * 99}]
    found = embed(tmp_path, rows, pooling="word", words="given", gates={"max_failed_share": 0.5})
    assert (found.result.action, found.result.exit_code) == ("quarantined", 3)
    assert [row["status"] for row in lines(found)] == ["ok", "unaligned", "unaligned"]
    assert [row["error"] and row["error"]["class"] for row in lines(found)] == [None, "no_text", "text_too_long"]
    fatal = embed(tmp_path, rows, pooling="word", words="given", on_error="fail", layers=[1])
    assert (fatal.result.action, fatal.result.exit_code) == ("failed", 1)
    assert "2 of 3 recordings failed" in fatal.result.message


def test_half_precision_and_weights(tmp_path: Path) -> None:
    rows = clips("wav-16k.wav", "wav-22k.wav")
    weights = [0.25, 0.75]
    both = embed(tmp_path, rows, name="both", layers=[1, -1])
    summed = embed(tmp_path, rows, name="summed", layers=[1, -1], weights=weights, dtype="fp16")
    for row, other in zip(lines(both), lines(summed), strict=True):
        (parts,), (vector,) = of(both, row), of(summed, other)
        assert vector.dtype == np.float16
        np.testing.assert_allclose(vector, 0.25 * parts[:HIDDEN] + 0.75 * parts[HIDDEN:], atol=5e-3)


def test_silence_may_count_as_sound(tmp_path: Path) -> None:
    samples, rate = soundfile.read(CLIPS / "wav-16k.wav", dtype="float32")
    quiet = np.zeros(3 * rate, np.float32)
    for name, sound in (("quiet", quiet), ("both", np.concatenate([samples, quiet]))):
        soundfile.write(tmp_path / f"{name}.wav", sound, rate, subtype="FLOAT")
    rows: list[Fields] = [{"audio": "quiet.wav"}, {"audio": "both.wav"}]
    dropped, kept = (embed(tmp_path, rows, name=silence, silence=silence) for silence in ("drop", "keep"))
    assert [row["status"] for row in lines(dropped)] == ["empty", "ok"]
    assert [row["status"] for row in lines(kept)] == ["ok", "ok"]
    assert lines(dropped)[1]["heard_frames"] < len(samples) / 320 + 25 < lines(kept)[1]["heard_frames"]


def test_layers_are_counted_from_both_ends() -> None:
    spec = AsrEmbed(kind="asr-embed", name="a", model=Model(id="./m"), data=AudioData(audio=["a.wav"]), layers=[0, 3])
    assert spec.model_copy(update={"layers": [0, 3, -1, -13]}).numbered(13) == (0, 3, 13, 1)
    assert (spec.unfit({"layers": 3}), spec.unfit({"layers": 13})) == (None, None)
    for layers in ([14], [0, -15]):
        wrong = spec.model_copy(update={"layers": layers}).unfit({"layers": 13})
        assert wrong == f"layers has {layers[-1]}, but the model has 0 to 13, or -1 to -14 from the end"
    assert spec.model_copy(update={"layers": [13, -1]}).unfit({"layers": 13}) == "layers [13, -1] names layer 13 twice"


def test_what_the_model_has_not_is_said_by_the_plan(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"layers has 4, but the model has 0 to 3, or -1 to -4 from the end") as error:
        embed(tmp_path, clips("wav-16k.wav"), layers=[4])
    assert error.value.exit_code == 2


def test_what_the_model_has_not_is_said_before_the_work(tmp_path: Path) -> None:
    """Where the plan could not know: the model is made by the step before."""

    def job(spec: AsrEmbed, ctx: Context) -> Result:
        return asr_embed.run(spec.model_copy(update={"layers": [4]}), ctx)

    found = embed(tmp_path, clips("wav-16k.wav"), job=job)
    assert (found.result.action, found.result.failure) == ("failed", "ModelInvalid")
    assert "layers has 4, but the model has 0 to 3" in found.result.message


def test_pooled_frames_are_not_kept(tmp_path: Path) -> None:
    """Half of the windows of a long recording are there: what is kept of them is their parts."""
    given: list[tuple[int, int]] = []
    job = watching(asr_embed.run, given, stop_after=2)
    stopped = embed(tmp_path, clips("long-90s.opus"), job=job, pooling="mean_std", layers=[0, 1, 2, 3])
    assert stopped.result.action == "cancelled"
    (kept,) = (stopped.files.parent / "checkpoints" / "frames").glob("*.npy")
    windows, parts, width = 30, 2, 4 * HIDDEN + 1
    assert np.load(kept, mmap_mode="r").shape == (windows * parts, width)


def peak_mb(folder: Path, count: int) -> float:
    """Resident memory of a process that embeds every frame of ``count`` files of half a second in four layers."""
    folder.mkdir()
    sound, rate = soundfile.read(CLIPS / "wav-16k.wav", dtype="float32", frames=8000)
    soundfile.write(folder / "0.wav", sound, rate)
    for i in range(1, count):
        os.link(folder / "0.wav", folder / f"{i}.wav")
    fields: Fields = {"data": {"audio": ["."]}, "pooling": "none", "layers": [0, 1, 2, 3], "dtype": "fp32"}
    fields |= {"batch": {"files": 8}, "shard_mb": 1}  # so that 200 files fill what is held at once
    (folder / "spec.yaml").write_text(json.dumps(spec(kind="asr-embed", **fields)), "utf-8")
    process = subprocess.Popen([*RUNNER, "apply", "spec.yaml", "--local"], env=environment(), cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    index = (folder / "artifacts/job/v1/files/index.jsonl").read_bytes().splitlines()
    assert len({json.loads(line)["path"] for line in index}) == count
    return usage.ru_maxrss / 1000


@pytest.mark.slow
def test_memory_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    """1,800 files more have 89 MB of vectors."""
    few, many = peak_mb(tmp_path / "few", 200), peak_mb(tmp_path / "many", 2000)
    assert many - few < 45, f"{few:.0f} MB for 200 files, {many:.0f} MB for 2,000"


@pytest.mark.parametrize("pooling", ["none", "mean", "word"])
@pytest.mark.parametrize("how", [(1, 1000, None), (3, 5, None), (1, 4, 3)], ids=["large", "workers", "stopped"])
def test_the_same_bytes_whatever_the_batches_workers_and_interruptions(
    how: tuple[int, int, int | None], pooling: str, tmp_path: Path, plain: dict[str, Ran]
) -> None:
    workers, seconds, stop_after = how
    first: list[tuple[int, int]] = []
    fields: Fields = {"batch": {"seconds": seconds}, "pooling": pooling}
    if stop_after is not None:
        stopped = embed(tmp_path, clips(*SOME), job=watching(asr_embed.run, first, stop_after=stop_after), **fields)
        assert stopped.result.action == "cancelled"
        assert first
        with (stopped.files.parent / "checkpoints" / "vectors.bin").open("ab") as file:
            file.write(b"torn")
    second: list[tuple[int, int]] = []
    job = watching(asr_embed.run, second, backwards=True, workers=workers)
    found = embed(tmp_path, clips(*SOME), job=job, **fields)
    assert not set(first) & set(second)
    assert len(first) + len(second) == found.manifest["metrics"]["windows"]
    assert everything(found) == everything(plain[pooling])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """What undisturbed jobs write."""
    return {
        pooling: embed(tmp_path_factory.mktemp(pooling), clips(*SOME), pooling=pooling)
        for pooling in ("none", "mean", "word")
    }
