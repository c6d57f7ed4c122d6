"""A model that was only pretrained: which kind takes it, and what the others say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.schema.errors import PlanError
from runner.schema.kinds import job_class, kinds_for
from tests.plan.house import House
from tests.registry import models

HEAD = "no CTC head (it is a Wav2Vec2ForPreTraining)"
VOCABULARY = "no vocabulary (tokenizer.json or vocab.json)"
BUILD = {"source": "build"}


def base(folder: Path, *, head: bool, vocabulary: bool) -> None:
    """Put a model into ``folder`` that has what is asked for."""
    name = "Wav2Vec2ForCTC" if head else "Wav2Vec2ForPreTraining"
    tensors = {key: one for key, one in models.TENSORS.items() if head or not key.startswith("lm_head")}
    files = models.files({**models.WAV2VEC2, "architectures": [name]}, tensors)
    models.write(folder, {key: one for key, one in files.items() if vocabulary or key != "vocab.json"})


def finetune(house: House, **fields: Any) -> dict[str, Any]:
    for name in ("train", "validation"):
        row = {"audio": "clips/a.wav", "text": "a"}
        (house.folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    data = {"train": "train.jsonl", "validation": "validation.jsonl"}
    return {"kind": "asr-finetune", "name": "a", "model": "./base", "data": data, "train": {"steps": 1}} | fields


def refusal(house: House, spec: dict[str, Any]) -> str:
    with pytest.raises(PlanError) as caught:
        house.plan(spec)
    assert caught.value.exit_code == 2
    (problem,) = str(caught.value).splitlines()
    return problem


@pytest.mark.parametrize(
    ("head", "vocabulary", "lack", "hint"),
    [
        (False, False, f"{HEAD} and {VOCABULARY}", "give a checkpoint of Wav2Vec2ForCTC with lm_head.weight"),
        (False, True, HEAD, "give a checkpoint of Wav2Vec2ForCTC with lm_head.weight"),
        (True, False, VOCABULARY, "save its processor beside it"),
    ],
)
def test_what_a_base_lacks(house: House, head: bool, vocabulary: bool, lack: str, hint: str) -> None:
    base(house.folder / "base", head=head, vocabulary=vocabulary)
    said = refusal(house, house.spec(model={"id": "./base"}))
    advice = f"{hint}, or fine-tune this one (asr-finetune with vocabulary: {{source: build}})"
    assert said.endswith(f"model.id: model './base' cannot be used: it has {lack}; {advice}")
    for keeps in ({}, {"vocabulary": {"source": "keep"}}):
        said = refusal(house, finetune(house, **keeps))
        assert f"'./base': has {lack}, so vocabulary.source keep, the default, has nothing to keep: set " in said
        assert "vocabulary: {source: build}" in said
    for other in (BUILD, {"source": "given", "characters": "ab"}):
        (step,) = house.plan(finetune(house, vocabulary=other)).steps
        assert (step.action, step.family) == ("create", "wav2vec2")


def test_only_fine_tuning_begins_with_a_base() -> None:
    assert [kind for kind in kinds_for("ctc") if job_class(kind).begins] == ["asr-finetune"]
