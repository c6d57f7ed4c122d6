"""What a spec of `llm-train` says reaches the parts that it is for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import ValidationError

from runner.checkpoints import Checkpoints
from runner.context import Given
from runner.jobs import llm_train
from runner.llm import lessons, outcome
from runner.llm.model import begin
from runner.llm.model.prepared import Adapter, Base, Prepared
from runner.llm.training import samples
from runner.llm.training.recipe import Rate, Recipe
from runner.llm.training.session import Done
from runner.precision import Precision
from runner.schema.errors import JobError
from runner.schema.jobs.llm_train import LanguageGates, LlmTrain
from tests.jobs.test_llm_train import spec

FULL: dict[str, Any] = {
    "model": {"id": "artifact:base#model", "trust_remote_code": False},
    "tokens": {"add": ["<x>"], "multiple": 64},
    "data": {
        "train": [
            {"source": "a.jsonl", "format": "alpaca", "weight": 2.5, "split": "dev", "columns": {"q": "instruction"}},
            "b.jsonl",
        ],
        "validation": "c.jsonl",
        "template": "my.jinja",
        "loss_on": "all",
        "on_error": "skip",
    },
    "adapter": {
        "type": "dora",
        "r": 3,
        "alpha": 5.0,
        "dropout": 0.15,
        "target_modules": ["auto", "lm_head"],
        "modules_to_save": ["embed_tokens"],
    },
    "quantize": "int8",
    "packing": {"mode": "required", "long": "split", "look_ahead": 77},
    "train": {
        "epochs": 1.5,
        "learning_rate": 0.03,
        "schedule": "linear",
        "warmup": 0.11,
        "floor": 0.33,
        "optimizer": "adafactor",
        "weight_decay": 0.04,
        "betas": [0.81, 0.92],
        "clip_norm": 2.5,
        "neftune_alpha": 4.5,
        "seed": 6,
    },
    "batch": {"seq_len": 96, "rows": 3, "accumulate": 5},
    "precision": "bf16",
    "optimize": {
        "attention": "required",
        "kernels": "off",
        "loss_chunking": "required",
        "quantised_lora": "off",
        "checkpointing": "required",
        "offload": True,
        "probe": False,
    },
    "evaluation": {"every_steps": 4, "save_every_steps": 2, "patience": 5, "best": False, "prompt_tokens": 9},
    "distribution": {"strategy": "zero2", "offload": "optimizer"},
    "compute": {"cpus": 1, "memory_gb": 3},
}


def made(**fields: Any) -> LlmTrain:
    """A spec in which no setting is what it would be if it were left out, nor as one beside it."""
    text = spec() | FULL | fields
    if "architecture" not in fields:
        del text["architecture"]
    return LlmTrain.model_validate(text)


class Known(NamedTuple):
    """What the registry would say of a model."""

    facts: Mapping[str, Any]
    family: str
    path: str


class Told:
    """As much of a context as the job asks before the model is there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkpoints, self.device = folder, folder / "checkpoints", "cpu"
        self.log = print
        one = {name: folder / name for name in ("a.jsonl", "b.jsonl", "c.jsonl")}
        fields = {"data.train[0].source": "a.jsonl", "data.train[1].source": "b.jsonl"}
        fields |= {"data.validation[0].source": "c.jsonl"}
        self.inputs = {
            field: Given(field=field, ref=name, digest="1", path=one[name]) for field, name in fields.items()
        } | {"model": Given(field="model", ref="artifact:base@v7#model", digest="fingerprint:1", path=folder)}

    def check(self) -> None:
        """Nobody stops it."""


def test_every_setting_of_the_optimiser_reaches_it() -> None:
    assert llm_train._recipe(made(), Precision(name="bf16", why="")) == Recipe(
        rate=Rate(highest=0.03, schedule="linear", warmup=0.11, floor=0.33),
        accumulate=5,
        optimizer="adafactor",
        weight_decay=0.04,
        betas=(0.81, 0.92),
        clip_norm=2.5,
        neftune_alpha=4.5,
        precision="bf16",
        every_steps=4,
        save_every_steps=2,
        patience=5,
        best=False,
        seed=6,
    )


@pytest.mark.parametrize(
    ("fields", "rate"),
    [
        ({}, 2e-4),
        ({"adapter": {"type": "none"}, "quantize": "none"}, 2e-5),
        ({"adapter": {"type": "none"}, "quantize": "none", "model": None, "architecture": {"type": "llama"}}, 1e-3),
    ],
)
def test_the_learning_rate_is_that_of_what_is_trained(fields: dict[str, Any], rate: float) -> None:
    wanted = made(train={"max_steps": 1}, **fields)
    assert llm_train._recipe(wanted, Precision(name="fp32", why="")).rate.highest == rate


def test_every_setting_of_the_model_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(begin, "prepare", lambda folder, **given: told.update(given, folder=folder))
    context, known = Told(tmp_path), Known({"max_positions": 64}, "llama", str(tmp_path))
    chosen = Precision(name="bf16", why="")
    llm_train._prepared(made(), context, known, "tokenizer", added=("<x>",), chosen=chosen)  # type: ignore[arg-type]
    assert told.pop("say") == context.log
    assert told == {
        "folder": tmp_path,
        "facts": known.facts,
        "family": "llama",
        "tokenizer": "tokenizer",
        "added": ("<x>",),
        "multiple": 64,
        "precision": chosen,
        "quantize": "int8",
        "adapter": Adapter(
            type="dora",
            r=3,
            alpha=5.0,
            dropout=0.15,
            target_modules=("auto", "lm_head"),
            modules_to_save=("embed_tokens",),
        ),
        "optimize": {"attention": "required", "kernels": "off", "loss_chunking": "required", "quantised_lora": "off"},
        "checkpointing": "required",
        "offload": True,
        "seq_len": 96,
        "rows": 3,
        "packing": "required",
        "optimizer": "adafactor",
        "strategy": "zero2",
        "offload_state": "optimizer",
        "stage": None,
        "device": "cpu",
        "seed": 6,
        "memory_bytes": 3 * 10**9,
        "base": Base(ref="artifact:base#model", digest="fingerprint:1"),
        "trust_remote_code": False,
    }


class Ready(Prepared):
    """As much of a prepared model as its batches need."""

    def __init__(self, **fields: Any) -> None:
        tokenizer, model = SimpleNamespace(pad_token_id=7), SimpleNamespace(config=None, device=torch.device("cpu"))
        usual = {"packed": False, "tokenizer": tokenizer, "model": model, "precision": Precision(name="bf16", why="")}
        vars(self).update(usual | {"facts": {"max_positions": 64, "hidden": 32}} | fields)


class Taught:
    """As much of what is learned as its batches need: what it is asked for."""

    encoder = SimpleNamespace(ask=None)

    def steps(self, layout: Mapping[str, Any], **given: Any) -> Any:
        return layout, given

    def held(self, layout: Mapping[str, Any]) -> Any:
        return layout


def test_every_setting_of_a_batch_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.llm.model.prepared.max_documents", lambda facts, tokens: tokens + 1)
    monkeypatch.setattr("runner.llm.packing.form.position_axes", lambda config: 4)
    monkeypatch.setattr(llm_train, "Examiner", lambda steps, **given: steps)
    layout = {
        "packed": False,
        "seq_len": 96,
        "rows": 3,
        "accumulate": 5,
        "pad_id": 7,
        "long": "split",
        "most_documents": 96 * 3 + 1,
        "rank": 0,
        "size": 1,
        "hidden": 32,
        "position_axes": 4,
        "positions": 64,
    }
    given = {"look_ahead": 77, "seed": 6, "epochs": 1.5, "max_steps": None}
    context: Any = Told(tmp_path)
    taught: Any = Taught()
    steps: Any = llm_train._steps(made(), context, Ready(), taught)
    assert steps == (layout, given | {"journal": tmp_path / "checkpoints" / "blocks.jsonl"})
    held: Any = llm_train._examiner(made(), context, Ready(), taught)
    assert held == layout
    steps = llm_train._steps(made(), context, Ready(packed=True), taught)
    assert steps[0]["packed"] is True


@pytest.mark.parametrize(
    ("strategy", "changes", "names"),
    [
        ("whole", {}, None),
        ("fsdp2", {}, "strategy"),
        ("whole", {"packed": True}, "packed"),
        ("whole", {"precision": Precision(name="fp32", why="")}, "precision"),
        ("whole", {"model": SimpleNamespace(device=torch.device("meta"))}, "device"),
    ],
)
def test_checkpoints_of_another_run_are_not_gone_on_with(
    strategy: str, changes: dict[str, Any], names: str | None, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.check(Ready().identity(strategy="whole"))
    checkpoints.of(3).mkdir()
    again = Ready(**changes).identity(strategy=strategy)
    if names is None:
        checkpoints.check(again)
        return
    with pytest.raises(JobError, match=f"are of another run: {names} was"):
        checkpoints.check(again)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"adapter": {"type": "none"}, "quantize": "none"}, "for an adapter's layers: set adapter.type to lora"),
        (
            {"distribution": {"strategy": "zero3"}},
            "cannot be required: set strategy to fsdp2",
        ),
    ],
)
def test_a_lora_kernel_is_required_only_where_it_can_be_had(fields: dict[str, Any], said: str) -> None:
    made(optimize={"quantised_lora": "required"})
    made(optimize={"quantised_lora": "preferred"}, **fields)
    with pytest.raises(ValidationError, match=said):
        made(optimize={"quantised_lora": "required"}, **fields)


def test_every_setting_of_the_data_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    def read(reading: Any, train: Any, validation: Any, **given: Any) -> None:
        told.update(given, reading=reading, train=train, validation=validation)

    monkeypatch.setattr(lessons, "read", read)
    monkeypatch.setattr(llm_train, "Encoder", lambda *given, **named: (*given, named))
    llm_train._lessons(made(), Told(tmp_path), "tokenizer", "template")  # type: ignore[arg-type]
    reading, train = told.pop("reading"), told.pop("train")
    assert reading.encoder == ("tokenizer", "template", {"loss_on": "all"})
    assert (reading.skipped.policy, reading.folder) == ("skip", tmp_path / "checkpoints" / "corpora")
    first, second = train["data.train[0]"], train["data.train[1]"]
    assert (first.name, first.files, first.format) == ("a.jsonl", (tmp_path / "a.jsonl",), "alpaca")
    assert (first.split, first.columns, first.weight) == ("dev", {"q": "instruction"}, 2.5)
    assert (second.name, second.weight, second.format) == ("b.jsonl", 1.0, None)
    assert [one.name for one in told.pop("validation").values()] == ["c.jsonl"]
    assert told == {"streaming": False, "share": 0.0, "seed": 6, "block": 77}


@pytest.mark.parametrize(("method", "learned"), [("sft", "responses"), ("pretrain", "all")])
def test_what_is_learned_follows_the_method(method: str, learned: str) -> None:
    assert llm_train._loss_on(made(method=method, data={"train": "a.jsonl", "validation_share": 0.1})) == learned
    assert llm_train._loss_on(made(method=method)) == "all"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"evaluation": {"patience": 3}}, r"evaluation\.patience"),
        ({"gates": {"max_validation_loss": 2}, "evaluation": {}}, r"gates\.max_validation_loss"),
        ({"gates": {"max_validation_perplexity": 2}, "evaluation": {}}, r"gates\.max_validation_perplexity"),
    ],
)
def test_what_is_measured_needs_data(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} needs data to measure on"):
        made(data={"train": "a.jsonl"}, **fields)


def test_every_gate_has_its_figure() -> None:
    measured = [{"step": 2, "validation_loss": 3.0}, {"step": 4, "validation_loss": 2.0}, {"step": 6}]
    done = Done(history=measured, best=4, steps=6, planned=6, stopped=False, why="", state=None)
    figures = outcome.figures(done, [{"loss": 1.5, "targets": 7}])
    assert set(figures) == {name.removeprefix("max_") for name in LanguageGates.model_fields}
    assert figures["validation_perplexity"] == pytest.approx(math.exp(2.0))


def test_a_prompt_and_its_answer_must_fit_the_positions() -> None:
    def ask(text: str) -> list[int]:
        return [0] * len(text)  # a token a letter

    kept = samples.prompts(["ab", "abcd"], ask, tokens=60, positions=64)
    assert [len(one.ids) for one in kept] == [2, 4]
    with pytest.raises(JobError, match=r"prompts\[1\] has 4 tokens, its answer up to 60, and the model 63 positions"):
        samples.prompts(["ab", "abcd"], ask, tokens=60, positions=63)
