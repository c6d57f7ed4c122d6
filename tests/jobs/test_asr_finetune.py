"""`asr-finetune` from spec to artifact: what it makes, what it refuses, and that a kill leaves no trace."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

from runner.asr import lint
from runner.context import Context, Result
from runner.execution.failures import Cancelled
from runner.jobs import asr_finetune
from runner.schema import load
from runner.schema.errors import SpecError
from runner.schema.jobs.asr_finetune import AsrFinetune
from tests.asr.training import tones
from tests.e2e.helpers import manifest, runner, start
from tests.jobs import helpers
from tests.jobs.helpers import QUICKSTART, Ran, apply, ran

Fields = dict[str, Any]
NONE = {"type": "none"}
SMALL = {
    "type": "wav2vec2",
    "hidden": 32,
    "layers": 1,
    "feed_forward": 64,
    "conv_channels": [16, 24, 32],
    "conv_kernels": [10, 8, 8],
    "conv_strides": [5, 8, 8],
}


def spec(name: str = "tones", **fields: Any) -> Fields:
    """A training of seconds."""
    return {
        "kind": "asr-finetune",
        "name": name,
        "architecture": SMALL,
        "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
        "train": {"steps": 2, "learning_rate": 0.01},
        "batch": {"seconds": 6.0},
        "compute": {"cpus": 1},
        **fields,
    }


def data(folder: Path, *, train: int = 24, validation: int = 8) -> Path:
    """Tables of tones in ``folder``."""
    tones.table(folder, "train", tones.texts(train, seed=1))
    tones.table(folder, "validation", tones.texts(validation, seed=2), noise=["none", "10 dB"] * (validation // 2))
    return folder


def finetune(folder: Path, *, store: str = "store", **fields: Any) -> Ran:
    (result,), kept = apply(folder, spec(**fields), store=store)
    return ran(result, kept)


def rows(made: Ran) -> list[Fields]:
    return [json.loads(line) for line in (made.files / "eval.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_from_random_weights_to_a_model_that_transcribes(tmp_path: Path) -> None:
    """A graph: the model learns the tones, and asr-transcribe reads the same texts with it."""
    data(tmp_path, train=300, validation=20)
    training = spec(train={"steps": 450, "learning_rate": 0.01, "shortest_first": True}, gates={"max_cer": 0.1})
    training |= {"evaluation": {"every_steps": 150}, "augment": {"noise_snr_db": [20.0, 40.0]}}
    reading = helpers.spec("reading", model="artifact:tones", data={"manifest": "validation.jsonl"})
    (trained, read), kept = apply(tmp_path, training, reading)
    model, texts = ran(trained, kept), ran(read, kept)
    assert (trained.action, read.action) == ("created", "created")
    assert trained.metrics["cer"] < 0.1
    assert trained.metrics["wer"] == pytest.approx(read.metrics["wer"], abs=0.05)
    heard = {row["path"]: row["hypothesis"] for row in rows(model)}
    assert sum(heard[row["path"]] == row["text"] for row in texts.rows) >= 19


def test_what_an_artifact_holds(tmp_path: Path) -> None:
    made = finetune(data(tmp_path))
    assert made.result.action == "created"
    names = {str(path.relative_to(made.files)) for path in made.files.rglob("*") if path.is_file()}
    model = {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer_config.json", "vocab.json"}
    assert names == {"eval.jsonl", "lint.json", *(f"model/{name}" for name in model)}
    first = rows(made)[0]
    assert first["path"] == "validation-0.wav"
    assert first["groups"] == {"noise": "none"}
    assert first["text"] == tones.texts(8, seed=2)[0]
    assert first["errors"] <= first["words"] * 3
    metrics = made.manifest["metrics"]
    assert metrics["wer"] == sum(row["errors"] for row in rows(made)) / sum(row["words"] for row in rows(made))
    assert metrics["text"][0] == "portuguese/1 pt-BR"
    assert (metrics["steps"], metrics["clips_train"], metrics["clips_validation"]) == (2, 24, 8)
    report = json.loads((made.files.parent / "report.json").read_text())
    titles = [table["title"] for table in report["tables"]]
    assert {"Error rates", "Error rates by group", "Words most often wrong", "Measurements", "Data lint"} <= set(titles)
    groups = next(table for table in report["tables"] if table["title"] == "Error rates by group")
    assert {("noise", "none"), ("noise", "10 dB")} <= {tuple(row[:2]) for row in groups["rows"]}
    assert any("best of 2 measurements" in note for note in report["notes"])


def test_the_same_spec_gives_the_same_bytes(tmp_path: Path) -> None:
    data(tmp_path)
    more = {"augment": {"noise_snr_db": [10.0, 30.0], "speed": 0.1, "time_masks": 0.2}}
    one, two = (finetune(tmp_path, store=store, **more) for store in ("a", "b"))
    assert one.manifest["digest"] == two.manifest["digest"]


def test_a_model_is_measured_before_and_after(tmp_path: Path) -> None:
    """The quickstart's model hears two of its own clips; its vocabulary and processor stay."""
    clips = helpers.clips("wav-22k.wav", "wav-16k.wav")
    helpers.manifest(tmp_path, clips, "validation.jsonl")
    helpers.manifest(tmp_path, helpers.clips("flac-22k.flac"), "train.jsonl")
    model = {"architecture": NONE, "model": str(QUICKSTART / "model"), "train": {"steps": 1, "learning_rate": 1e-5}}
    made = finetune(tmp_path, **model)
    metrics = made.manifest["metrics"]
    assert metrics["wer_before"] <= 0.2
    assert metrics["wer"] <= 0.2
    assert made.manifest["inputs"][0]["field"] == "model"
    for name in ("vocab.json", "preprocessor_config.json"):
        assert (made.files / "model" / name).read_bytes() == (QUICKSTART / "model" / name).read_bytes()
    report = json.loads((made.files.parent / "report.json").read_text())
    rates = next(table for table in report["tables"] if table["title"] == "Error rates")
    assert [row[1] for row in rates["rows"]] == ["before"] * 4 + ["after"] * 4
    assert "freezing" in {line["what"] for line in made.manifest["ledger"]}


def test_lora_on_a_model_with_another_alphabet(tmp_path: Path) -> None:
    clips = helpers.clips("wav-22k.wav")
    for name in ("train.jsonl", "validation.jsonl"):
        helpers.manifest(tmp_path, [{**clip, "text": clip["text"] + " ñandú"} for clip in clips], name)
    model = {"architecture": NONE, "model": str(QUICKSTART / "model"), "vocabulary": {"source": "build"}}
    allowed = {"lint": {"allow": ["leaked_audio", "leaked_text"]}}
    made = finetune(
        tmp_path, **model, **allowed, adapter={"type": "lora", "r": 4}, train={"steps": 1, "learning_rate": 1e-5}
    )
    vocabulary = json.loads((made.files / "model" / "vocab.json").read_text("utf-8"))
    assert "ñ" in vocabulary
    assert "wer_before" not in made.manifest["metrics"]
    assert made.manifest["metrics"]["vocabulary"] == len(vocabulary)
    assert {"lora", "freezing"} <= {line["what"] for line in made.manifest["ledger"]}


def test_a_gate_that_is_missed_quarantines(tmp_path: Path) -> None:
    made = finetune(data(tmp_path), gates={"max_wer": 0.001})
    assert (made.result.action, made.result.exit_code, made.result.failure) == ("quarantined", 3, "GateFailed")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": "ab" * 200}, "text_too_long in train"),
        ({"audio": "none.wav"}, "unreadable in train"),
        ({"text": "ab ra de", "audio": "validation-0.wav"}, "leaked_audio in validation"),
    ],
)
def test_data_that_would_not_train_well_stops_the_job_with_a_table(tmp_path: Path, change: Fields, said: str) -> None:
    table = data(tmp_path) / "train.jsonl"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[1:], json.dumps(json.loads(lines[0]) | change)]))
    made = finetune(tmp_path)
    assert (made.result.action, made.result.failure) == ("failed", "DataInvalid")
    assert said in made.result.message
    assert "lint.allow" in made.result.message
    found = json.loads((made.files / "lint.json").read_text())
    assert said.split(maxsplit=1)[0] in {finding["name"] for finding in found["findings"]}


def test_what_is_allowed_is_left_out(tmp_path: Path) -> None:
    table = data(tmp_path) / "train.jsonl"
    table.write_text(table.read_text() + json.dumps({"audio": "none.wav", "text": "ab"}) + "\n")
    made = finetune(tmp_path, lint={"allow": ["unreadable"]})
    assert made.result.action == "created"
    assert made.manifest["metrics"]["clips_train"] == 24


def test_nothing_left_to_learn_from_is_said(tmp_path: Path) -> None:
    data(tmp_path)
    (tmp_path / "train.jsonl").write_text(json.dumps({"audio": "none.wav", "text": "ab"}) + "\n")
    made = finetune(tmp_path, lint={"allow": ["unreadable", "outside_vocabulary"]})
    assert made.result.failure == "DataInvalid"
    assert "data.train: none of the 1 recordings can be used" in made.result.message


def test_the_lint_classes_of_a_spec_are_those_of_the_lint() -> None:
    items = AsrFinetune.model_json_schema()["$defs"]["Lint"]["properties"]["allow"]["items"]["enum"]
    assert set(items) == {name for name, (severity, _) in lint.CLASSES.items() if severity == "error"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": NONE}, "give exactly one of model and architecture.type"),
        ({"architecture": {"hidden": 64}, "model": "./model"}, "set architecture.type to wav2vec2"),
        ({"model": "./model"}, "give exactly one of model and architecture.type"),
        ({"train": {}}, "give exactly one of epochs and steps"),
        ({"train": {"epochs": 1, "steps": 1}}, "give exactly one of epochs and steps"),
        ({"train": {"steps": 1, "warmup": 0.6, "hold": 0.6}}, "warmup and hold together are at most 1"),
        ({"vocabulary": {"source": "given"}}, "characters go with source: given"),
        ({"vocabulary": {"characters": "ab"}}, "characters go with source: given"),
        ({"vocabulary": {"source": "keep"}}, "an architecture has no vocabulary to keep"),
        ({"adapter": {"type": "lora"}}, "an adapter goes beside a trained model"),
        ({"architecture": {"type": "wav2vec2", "hidden": 30}}, "hidden must be a multiple of heads"),
        ({"architecture": {"type": "wav2vec2", "conv_strides": [5]}}, "must be equally long"),
        ({"augment": {"noise_snr_db": [40.0, 10.0]}}, "from the lower level to the higher"),
        ({"augment": {"speed": 0.6}}, "augment.speed: expected a number from 0 to 0.5; got 0.6"),
        ({"train": {"steps": 1, "learning_rate": 0}}, "learning_rate"),
        ({"compute": {"gpus": 2}}, "each training process takes one whole GPU"),
        ({"compute": {"workers": 2, "gpus": 0.5}}, "each training process takes one whole GPU"),
    ],
)
def test_specs_that_make_no_sense_are_refused(tmp_path: Path, changes: Fields, said: str) -> None:
    (tmp_path / "spec.yaml").write_text(json.dumps(spec(**changes)))
    with pytest.raises(SpecError, match=said):
        load.load([str(tmp_path / "spec.yaml")])


def test_checkpoints_of_another_run_are_refused(tmp_path: Path) -> None:
    """Between two attempts their note says that another seed made them."""
    notes = data(tmp_path, train=6, validation=2).glob("store/.runs/*/checkpoints/training/run.json")

    def ended(wanted: Any, context: Context) -> Result:
        def check() -> None:
            if list(context.checkpoints.glob("training/step-*")):
                raise Cancelled

        return asr_finetune.run(wanted, replace(context, check=check))

    (result,), _ = apply(tmp_path, spec(), job=ended)
    assert result.action == "cancelled"
    (note,) = notes
    before = note.read_bytes()
    note.write_text(json.dumps(json.loads(before) | {"train.seed": 7}))
    made = finetune(tmp_path)
    assert (made.result.action, made.result.failure) == ("failed", "Infeasible")
    assert "are of another run: train.seed was 7, is 0; remove that folder to begin anew" in made.result.message
    note.write_bytes(before)
    events = note.parents[2] / "events.ndjson"
    assert finetune(tmp_path).result.action == "created"
    assert "goes on after step 1 of 2" in events.read_text("utf-8"), "a refusal takes nothing away"


@pytest.mark.slow
def test_kill_in_the_middle_then_apply_again_gives_the_same_bytes(tmp_path: Path) -> None:
    data(tmp_path)
    (tmp_path / "spec.yaml").write_text(
        json.dumps(
            spec(
                train={"steps": 60, "learning_rate": 0.01, "dropout": 0.1},
                augment={"noise_snr_db": [10.0, 30.0], "speed": 0.1, "join": 2, "time_masks": 0.1},
                evaluation={"every_steps": 5},
            )
        )
    )
    runner("apply", "spec.yaml", "--store", "whole", "--local", cwd=tmp_path)
    moments = random.Random(5)
    process = start("apply", "spec.yaml", "--store", "broken", "--local", cwd=tmp_path)
    for _ in range(3):
        seen = len(_checkpoints(tmp_path))
        deadline = time.monotonic() + 120
        while len(_checkpoints(tmp_path)) <= seen:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        process = start("apply", "spec.yaml", "--store", "broken", "--local", cwd=tmp_path)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "goes on after step" in said
    whole, broken = (manifest(tmp_path / store, "tones") for store in ("whole", "broken"))
    assert broken["run"]["attempts"] == 4
    assert broken["digest"] == whole["digest"]
    runner("artifacts", "verify", "--all", "--store", "broken", cwd=tmp_path)


def _checkpoints(folder: Path) -> set[str]:
    """Steps told so far, in any attempt."""
    events = (folder / "broken" / ".runs").glob("*/events.ndjson")
    lines = (json.loads(line) for path in events for line in path.read_text().splitlines() if line.endswith("}"))
    return {event["text"] for event in lines if event["type"] == "log" and event["text"].startswith("step ")}


def test_recordings_at_another_rate_are_heard_at_the_models(tmp_path: Path) -> None:
    data(tmp_path, train=4, validation=2)
    samples, _ = soundfile.read(tmp_path / "train-0.wav")
    soundfile.write(tmp_path / "train-0.wav", samples[::2], 8000)
    made = finetune(tmp_path)
    assert made.result.action == "created"
    found = json.loads((made.files / "lint.json").read_text())
    assert {finding["name"] for finding in found["findings"]} == {"sample_rate"}
