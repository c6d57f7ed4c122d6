"""`asr-finetune` from a model that was only pretrained, and what a report says where nothing was measured before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from runner.cli.main import main
from tests.asr import tiny
from tests.asr.training.test_pretrained import saved
from tests.jobs import helpers
from tests.jobs.helpers import QUICKSTART, Ran, apply, ran
from tests.jobs.test_asr_finetune import NONE, data, finetune, spec

BASE = {"architecture": NONE, "model": "./base", "vocabulary": {"source": "build"}}


def pretrained(folder: Path) -> Path:
    """What the hub has of one: weights, config and the settings of its feature extractor."""
    saved(folder / "base", "Wav2Vec2ForPreTraining")
    tiny.write_json(folder / "base" / "preprocessor_config.json", {"sampling_rate": 16000, **tiny.WAVEFORM})
    return folder / "base"


def report(made: Ran) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made.files.parent / "report.json").read_text())
    return found


def test_a_base_without_head_and_vocabulary_becomes_a_model_that_transcribes(tmp_path: Path) -> None:
    base = load_file(pretrained(data(tmp_path, train=8, validation=4)) / "model.safetensors")
    training = spec(**BASE, train={"steps": 2, "learning_rate": 1e-3})
    reading = helpers.spec("reading", model="artifact:tones", data={"manifest": "validation.jsonl"})
    (trained, read), kept = apply(tmp_path, training, reading)
    assert (trained.action, read.action) == ("created", "created")
    made = ran(trained, kept)
    assert {f"wer{end}" for end in ("", "_before")} & made.manifest["metrics"].keys() == {"wer"}
    assert any("had no trained head with a vocabulary: it wrote nothing" in note for note in report(made)["notes"])
    weights = load_file(made.files / "model" / "model.safetensors")
    assert {name.partition(".")[0] for name in weights} == {"lm_head", "wav2vec2"}
    frozen = [name for name in weights if ".feature_extractor." in name]
    assert len(frozen) > 0
    assert all(weights[name].equal(base[name]) for name in frozen)
    moved = "wav2vec2.encoder.layers.0.attention.q_proj.weight"
    assert 0 < (weights[moved] - base[moved]).abs().max() < 0.01  # two steps away from what was learned


def test_what_a_base_cannot_do_is_said_by_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretrained(data(tmp_path, train=2, validation=2))
    reading = helpers.spec(model="./base", data={"manifest": "validation.jsonl"})
    keeping = spec(**{**BASE, "vocabulary": {}})
    for wanted, said in ((reading, "cannot be used: it has no CTC head"), (keeping, "has nothing to keep")):
        (tmp_path / "spec.yaml").write_text(json.dumps(wanted))
        assert main(["plan", str(tmp_path / "spec.yaml"), "--store", str(tmp_path / "store")]) == 2
        told = capsys.readouterr().err
        assert said in told
        assert "vocabulary: {source: build}" in told


def test_a_model_of_another_alphabet_is_told_how_to_be_measured(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        helpers.manifest(tmp_path, helpers.clips("flac-22k.flac"), f"{name}.jsonl")
    model = {"architecture": NONE, "model": str(QUICKSTART / "model"), "vocabulary": {"source": "build"}}
    allowed = {"lint": {"allow": ["leaked_audio", "leaked_text"]}}
    made = finetune(tmp_path, **model, **allowed, train={"steps": 1, "learning_rate": 1e-5})
    assert "wer_before" not in made.manifest["metrics"]
    (note,) = (note for note in report(made)["notes"] if "writes other characters" in note)
    assert "transcribe the validation table with it (asr-transcribe)" in note


def test_nothing_is_said_of_before_where_there_was_none(tmp_path: Path) -> None:
    made = finetune(data(tmp_path, train=4, validation=2))
    assert not [note for note in report(made)["notes"] if "began with" in note]
