"""`llm-train`, the real job: gates, lengths, packing, early stops, adapters and quantised weights on one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from runner.plan.build import build
from runner.schema.load import load
from runner.store.local import open_store
from tests.jobs.helpers import Fields
from tests.jobs.test_llm_train import chats, created, jsonl, ledger, on, one, report, rows, said, spec, table, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a small trained model."""
    (base,) = train(tmp_path_factory.mktemp("base"), spec())
    return str(created(base).files / "model")


def whole(model: str, name: str = "tuned", **fields: Any) -> Fields:
    """All weights of the model in a folder."""
    return on(model, name, adapter={"type": "none"}, **fields)


def test_a_gate_that_is_missed_puts_the_artifact_aside(tmp_path: Path, model: str) -> None:
    found = one(tmp_path, on(model, gates={"max_validation_loss": 0.001, "max_training_loss": 900}))
    assert (found.result.action, found.result.exit_code) == ("quarantined", 3), found.result.message
    assert [(gate["name"], gate["passed"]) for gate in found.result.gates] == [
        ("max_validation_loss", False),
        ("max_training_loss", True),
    ]


def test_an_absurd_learning_rate_ends_with_advice(tmp_path: Path, model: str) -> None:
    made = whole(model, train={"max_steps": 60, "learning_rate": 1, "warmup": 0}, evaluation={"every_steps": 60})
    found = one(tmp_path, made)
    assert (found.result.action, found.result.failure) == ("failed", "NaN"), found.result
    assert "train.learning_rate" in found.result.message


@pytest.mark.parametrize("mode", ["required", "off"])
def test_no_document_is_longer_than_the_model_has_positions(tmp_path: Path, model: str, mode: str) -> None:
    """They are 128; a row of 256 tokens holds several documents."""
    (tmp_path / "plain.txt").write_text("\n\n".join(["casa rio " * 40] + ["casa rio"] * 6))
    data = {"train": "plain.txt"}
    batch = {"seq_len": 256, "rows": 1, "accumulate": 1}
    found = created(one(tmp_path, on(model, method="pretrain", data=data, batch=batch, packing=mode)))
    cut = found.manifest["metrics"]["documents_cut"]
    whole = max(row["tokens"] for row in rows(found.files / "training.jsonl"))
    assert cut["longer"] == 1 and cut["tokens_lost"] > 0
    assert whole <= (256 if mode == "required" else 128)


def test_it_stops_early_and_publishes_the_best(tmp_path: Path, model: str) -> None:
    jsonl(tmp_path / "other.jsonl", [{"messages": [said("user", "x"), said("assistant", "QWERTY ZXCV 0987")]}])
    made = whole(
        model,
        data={"train": "chat.jsonl", "validation": "other.jsonl"},
        train={"max_steps": 60, "learning_rate": 0.05, "schedule": "constant"},
        evaluation={"every_steps": 4, "patience": 2},
    )
    found = created(one(tmp_path, made))
    measured = {row[0]: row[1] for row in table(found, "Measurements")}
    best = min((step for step in measured if step), key=lambda step: measured[step])  # step 0 does not compete
    assert found.manifest["metrics"]["steps"] < 60
    assert found.manifest["metrics"]["best_step"] == best
    assert found.manifest["metrics"]["validation_loss"] == measured[best]
    assert any("stopped after" in note for note in report(found)["notes"])


def test_a_share_is_held_back_and_measured_on(tmp_path: Path, model: str) -> None:
    found = created(one(tmp_path, on(model, data={"train": "chat.jsonl", "validation_share": 0.25})))
    counts = found.manifest["metrics"]
    assert (counts["documents_train"], counts["documents_validation"]) == (30, 10)
    assert counts["validation_loss"] > 0


def test_added_tokens_are_one_piece_and_trained(tmp_path: Path, model: str) -> None:
    found = created(one(tmp_path, on(model, tokens={"add": ["<|soma|>"], "multiple": 64})))
    tokenizer = AutoTokenizer.from_pretrained(found.files / "adapter")
    assert len(tokenizer.encode("<|soma|>", add_special_tokens=False)) == 1
    kept = load_file(found.files / "adapter" / "adapter_model.safetensors")
    assert any("embed_tokens" in name and one.shape[0] % 64 == 0 for name, one in kept.items()), list(kept)


@pytest.mark.parametrize("mode", ["off", "preferred", "required"])
def test_packing_and_padding_learn_the_same_documents(tmp_path: Path, model: str, mode: str) -> None:
    found = created(one(tmp_path, on(model, packing={"mode": mode}, train={"epochs": 1})))
    assert ledger(found)["packing"]["applied"] is (mode != "off")
    lessons = rows(found.files / "training.jsonl")
    assert sum(row["targets"] for row in lessons) == found.manifest["metrics"]["targets_train"]


@pytest.mark.parametrize("long", ["split", "truncate", "drop"])
def test_documents_longer_than_a_row_are_counted(tmp_path: Path, model: str, long: str) -> None:
    texts = "\n\n".join(["casa rio " * 40] * 2 + ["casa rio"] * 6)
    (tmp_path / "plain.txt").write_text(texts)
    made = on(model, method="pretrain", data={"train": "plain.txt"}, packing={"long": long}, train={"epochs": 1})
    found = created(one(tmp_path, made))
    cut, lessons = found.manifest["metrics"]["documents_cut"], rows(found.files / "training.jsonl")
    assert (cut["documents"], cut["longer"]) == (8, 2)
    assert (cut["tokens_lost"] == 0) is (long == "split")
    assert sum(row["targets"] for row in lessons) == cut["targets"] - cut["targets_lost"]
    assert cut["targets_lost"] == 0 if long == "split" else cut["targets_lost"] > 0


def test_a_stream_is_trained_on_for_its_steps(tmp_path: Path, model: str) -> None:
    data = {"train": ["chat.jsonl", {"source": "held.jsonl", "weight": 2}], "streaming": True}
    found = created(one(tmp_path, on(model, data=data, train={"max_steps": 6})))
    counts, lessons = found.manifest["metrics"], rows(found.files / "training.jsonl")
    assert counts["steps"] == 6
    assert not {"documents_train", "tokens_train", "targets_train"} & counts.keys()  # how long a stream is nobody knows
    assert counts["tokens_learned"] == sum(row["tokens"] for row in lessons) > counts["targets_learned"] > 0


@pytest.mark.parametrize("kind", ["rslora", "dora"])
def test_other_adapters_are_trained(tmp_path: Path, model: str, kind: str) -> None:
    found = created(one(tmp_path, on(model, adapter={"type": kind, "r": 2})))
    config = json.loads((found.files / "adapter" / "adapter_config.json").read_text())
    assert (config["use_rslora"], config["use_dora"]) == (kind == "rslora", kind == "dora")


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_an_adapter_beside_quantised_weights(tmp_path: Path, model: str, quantize: str) -> None:
    found = created(one(tmp_path, on(model, quantize=quantize)))
    base = json.loads((found.files / "adapter" / "base.json").read_text())
    assert (base["quantize"], base["merge_base"]) == (quantize, "dequantised")
    assert ledger(found)["quantize"]["where"] == quantize


def test_a_change_of_the_data_is_planned_anew_with_its_reason(tmp_path: Path, model: str) -> None:
    created(one(tmp_path, on(model)))
    chats(tmp_path, count=41)
    plan = build(load([str(tmp_path / "spec.yaml")]), open_store(str(tmp_path / "store")))
    (step,) = plan.steps
    assert step.action == "create"
    assert any("chat.jsonl" in reason or "data.train[0]" in reason for reason in step.reasons), step.reasons
