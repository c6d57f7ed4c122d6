"""The same texts whatever the batches, the order, the workers, the windows, and wherever the job was interrupted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from runner.asr.ctc import Ctc
from runner.asr.score import Scorer
from runner.jobs import asr_transcribe
from tests.jobs import pools
from tests.jobs.helpers import CLIPS, Fields, clips, manifest, transcribe

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

WINDOW = {"length_s": 5.0, "context_s": 1.0}
ROWS = [{"audio": row["audio"], "id": row["id"]} for row in clips()]
watching = partial(pools.watching, asr_transcribe.run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a manifest of all clips; jobs that do the same work have stores of their own."""
    made = tmp_path_factory.mktemp("same-texts")
    manifest(made, ROWS)
    return made


@pytest.fixture(scope="module")
def plain(folder: Path) -> bytes:
    """What one undisturbed job writes: one worker, the device's own batches."""
    found = transcribe(folder, store="plain", data={"manifest": "clips.jsonl"}, window=WINDOW)
    assert found.result.action == "created"
    return found.transcripts


def texts(transcripts: bytes) -> dict[str, Fields]:
    return {row["id"]: row for row in map(json.loads, transcripts.splitlines())}


@pytest.mark.parametrize("batch", [{"seconds": 1}, {"seconds": 10}, {"seconds": 1000}, {"files": 1}], ids=str)
def test_batches_of_any_size_give_the_same_bytes(batch: Fields, folder: Path, plain: bytes) -> None:
    store = f"batch-{'-'.join(map(str, batch.items()))}"
    found = transcribe(folder, store=store, data={"manifest": "clips.jsonl"}, window=WINDOW, batch=batch)
    assert found.transcripts == plain


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_input_changes_nothing(seed: int, folder: Path, plain: bytes) -> None:
    order = np.random.default_rng(seed).permutation(len(ROWS))
    rows = manifest(folder, [ROWS[i] for i in order], name=f"shuffled-{seed}.jsonl")
    found = transcribe(folder, data={"manifest": rows}, window=WINDOW, batch={"seconds": 7})
    assert [row["id"] for row in found.rows] == [ROWS[i]["id"] for i in order]
    assert texts(found.transcripts) == texts(plain)


@pytest.mark.parametrize("name", ["wav-16k.wav", "opus-48k.opus", "noise-5db.flac", "long-90s.opus"])
def test_a_recording_alone_in_its_job_gives_the_same_row(name: str, folder: Path, plain: bytes) -> None:
    (row,) = [row for row in ROWS if Path(row["audio"]).name == name]
    rows = manifest(folder, [row], name=f"alone-{name}.jsonl")
    (found,) = transcribe(folder, data={"manifest": rows}, window=WINDOW).rows
    assert found == texts(plain)[row["id"]]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_in_any_order_gives_the_same_bytes(workers: int, folder: Path, plain: bytes) -> None:
    """Answers come backwards here; that processes of ray give the same is tested end to end."""
    given: list[tuple[int, int]] = []
    found = transcribe(
        folder,
        store=f"workers-{workers}",
        job=watching(given, backwards=True, workers=workers),
        data={"manifest": "clips.jsonl"},
        window=WINDOW,
        batch={"seconds": 5},
    )
    assert found.transcripts == plain
    assert len(set(given)) == len(given) == found.manifest["metrics"]["windows"]


@pytest.mark.parametrize(("stop_after", "torn"), [(0, False), (1, True), (3, False)])
def test_an_interrupted_job_goes_on_where_it_was(stop_after: int, torn: bool, folder: Path, plain: bytes) -> None:
    fields: Fields = {"data": {"manifest": "clips.jsonl"}, "window": WINDOW, "batch": {"seconds": 4}}
    store = f"stopped-{stop_after}-{torn}"
    first: list[tuple[int, int]] = []
    stopped = transcribe(folder, store=store, job=watching(first, stop_after=stop_after), **fields)
    assert (stopped.result.action, stopped.result.exit_code) == ("cancelled", 130)
    checkpoints = stopped.files.parent / "checkpoints"
    if torn:  # as a power cut leaves it
        with (checkpoints / "results.jsonl").open("ab") as file:
            file.write(b'{"item": 3, "record": {"text": "half a li')
    second: list[tuple[int, int]] = []
    found = transcribe(folder, store=store, job=watching(second), **fields)
    assert (found.result.action, found.result.attempts, found.result.run) == ("created", 2, stopped.result.run)
    assert found.transcripts == plain
    assert not set(first) & set(second), "finished batches are not computed again"
    assert len(first) + len(second) == found.manifest["metrics"]["windows"]
    assert second


def test_a_job_whose_work_was_done_computes_nothing_again(folder: Path, plain: bytes) -> None:
    """A job that says itself that it failed keeps what it has: with on_error continue only the last pass is left."""
    fields: Fields = {"data": {"manifest": "clips.jsonl"}, "window": WINDOW}
    first: list[tuple[int, int]] = []
    assert transcribe(folder, store="failed", job=watching(first), on_error="fail", **fields).result.action == "failed"
    second: list[tuple[int, int]] = []
    found = transcribe(folder, store="failed", job=watching(second), **fields)
    assert (found.result.action, found.transcripts == plain, second) == ("created", True, [])
    assert {line["what"] for line in found.manifest["ledger"]} >= {"precision", "batching"}


def test_a_size_that_fitted_into_memory_is_kept_to_by_later_workers_and_attempts(
    folder: Path, plain: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, refused = 12 * 16_000, []  # padded samples
    compute = Ctc.compute

    def limited(self: Ctc, windows: Sequence[np.ndarray]) -> list[Any]:
        if max(map(len, windows)) * len(windows) > limit:
            refused.append(len(windows))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(self, windows)

    monkeypatch.setattr(Ctc, "compute", limited)
    fields: Fields = {"data": {"manifest": "clips.jsonl"}, "window": WINDOW, "batch": {"seconds": 15}}
    stopped = transcribe(folder, store="memory", job=watching([], stop_after=2), **fields)
    assert stopped.result.action == "cancelled"
    assert len(refused) == 1, "the worker went on with what had fitted"
    second: list[tuple[int, int]] = []
    found = transcribe(folder, store="memory", job=watching(second), **fields)
    assert (found.result.attempts, found.transcripts == plain) == (2, True)
    assert len(second) > 10, "the test proves something only when work was left"
    assert len(refused) == 1, "the second attempt ran into the wall again"
    (line,) = [line for line in found.manifest["ledger"] if line["what"] == "batch halving"]
    assert line["why"].startswith("memory ran out once; batches are kept to")


def pauses() -> list[float]:
    """Middles of the pauses of 0.4 s between the sentences of the 90 s recording, in seconds."""
    samples, rate = soundfile.read(CLIPS / "long-90s.opus", dtype="float32")
    step = rate // 100
    levels = np.sqrt(np.mean(np.square(samples[: len(samples) // step * step].reshape(-1, step)), axis=1))
    quiet = np.flatnonzero(levels < 0.002)
    runs = np.split(quiet, np.flatnonzero(np.diff(quiet) > 1) + 1)
    return [float(run[0] + run[-1]) / 200 for run in runs if len(run) >= 30]


def errors(text: str, reference: str) -> float:
    scorer = Scorer()
    scorer.add(reference, text, key="long")
    return float(scorer.result().metrics()["wer"])


@pytest.mark.parametrize("length_s", [5.0, 20.0])
def test_the_long_recording_in_windows_is_the_sum_of_its_parts(length_s: float, folder: Path) -> None:
    """Parts are its sentences, cut in the pauses between them; two points of word error rate lie between."""
    (row,) = clips("long-90s.opus")
    cuts = [0.0, *pauses()]
    sentences = len(cuts) - 1
    assert sentences >= 30
    parts = [{"audio": row["audio"], "id": f"{i:02}", "start": a, "end": b} for i, (a, b) in enumerate(pairwise(cuts))]
    rows = manifest(folder, [{"audio": row["audio"], "id": "whole"}, *parts], name=f"long-{length_s}.jsonl")
    found = transcribe(folder, data={"manifest": rows}, window={"length_s": length_s})
    whole, *pieces = found.rows
    assert [piece["status"] for piece in pieces] == ["ok"] * sentences
    together = " ".join(piece["text"] for piece in pieces)
    assert len(together.split()) > 100
    in_windows, in_parts = errors(whole["text"], row["text"]), errors(together, row["text"])
    assert abs(in_windows - in_parts) <= 0.02, (in_windows, in_parts)
