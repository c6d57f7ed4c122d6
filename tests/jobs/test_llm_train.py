"""`llm-train`, the real job: a small model from random weights, adapters on it, and what each leaves behind."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from runner.llm.training import journal
from tests.jobs.helpers import Fields, Ran, apply, ran
from tests.llm.model import made as models

WORDS = ("casa", "rio", "pedra", "vento", "folha", "ponte", "barco", "livro")
ANSWERS: dict[str, Any] = {"evaluation": {"prompts": ["diga casa", "diga rio"], "prompt_tokens": 5, "every_steps": 2}}


def chats(folder: Path, name: str = "chat.jsonl", *, count: int = 40, shift: int = 0) -> str:
    """Conversations whose answers are the question's word twice; a file of ``folder``."""
    rows = []
    for number in range(count):
        word = WORDS[(number + shift) % len(WORDS)] * (1 + number % 3)
        rows.append({"messages": [said("user", f"diga {word}"), said("assistant", f"{word} {word}")]})
    return jsonl(folder / name, rows)


def said(role: str, content: str) -> Fields:
    """One message."""
    return {"role": role, "content": content}


def jsonl(path: Path, rows: Iterable[Any]) -> str:
    """Write ``rows``, a text as it is; the name of the file."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path.name


def spec(name: str = "base", **fields: Any) -> Fields:
    """Four steps of a model of two small layers."""
    base: Fields = {
        "kind": "llm-train",
        "name": name,
        "method": "sft",
        "architecture": {"type": "llama", "hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "feed_forward": 48}
        | {"vocabulary": 300, "positions": 128},
        "data": {"train": "chat.jsonl", "validation": "held.jsonl"},
        "batch": {"seq_len": 64, "rows": 2, "accumulate": 2},
        "train": {"max_steps": 4, "learning_rate": 0.01},
        "precision": "fp32",
        "compute": {"cpus": 1},
        "track": [],
    }
    return base | fields


def adapter(name: str = "adapter", **fields: Any) -> Fields:
    """Four steps of an adapter on `base`."""
    made = spec(name, model="artifact:base#model", adapter={"type": "lora", "r": 4}) | fields
    del made["architecture"]
    return made


def train(folder: Path, *specs: Fields, store: str = "store") -> list[Ran]:
    """Carry ``specs`` out in ``folder``, which holds the conversations."""
    chats(folder)
    chats(folder, "held.jsonl", count=8, shift=3)
    results, kept = apply(folder, *specs, store=store)
    return [ran(result, kept) for result in results]


def one(folder: Path, made: Fields) -> Ran:
    """Carry one spec out, to whatever end."""
    (found,) = train(folder, made)
    return found


def created(found: Ran) -> Ran:
    """``found``, which must have become an artifact."""
    assert found.result.action == "created", found.result.message
    return found


def ledger(found: Ran) -> dict[str, Mapping[str, Any]]:
    """The lines of the ledger by what they tell of."""
    return {line["what"]: line for line in found.manifest["ledger"]}


def report(found: Ran) -> Fields:
    """The report as JSON."""
    made: Fields = json.loads((found.files.parent / "report.json").read_text("utf-8"))
    return made


def table(found: Ran, title: str) -> list[list[Any]]:
    """Rows of a table of the report."""
    return next(one["rows"] for one in report(found)["tables"] if one["title"] == title)


def rows(path: Path) -> list[Fields]:
    """Lines of JSON."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def names(folder: Path) -> set[str]:
    """All files below ``folder``."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran, Ran]:
    """A folder whose store holds `base` and an adapter on it."""
    folder = tmp_path_factory.mktemp("pair")
    base, tuned = train(folder, spec(**ANSWERS), adapter(**ANSWERS))
    return folder, created(base), created(tuned)


@pytest.fixture(scope="module")
def model(pair: tuple[Path, Ran, Ran]) -> str:
    """The folder of a small trained model."""
    return str(pair[1].files / "model")


def on(model: str, name: str = "tuned", **fields: Any) -> Fields:
    """An adapter on the model in a folder."""
    return adapter(name, model={"id": model}, **fields)


def test_the_files_are_those_of_the_contract_and_load_elsewhere(pair: tuple[Path, Ran, Ran]) -> None:
    _, base, tuned = pair
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    weights = {"model.safetensors", "config.json", "generation_config.json"}
    lora = {"adapter_model.safetensors", "adapter_config.json", "base.json", "generation_config.json"}
    assert names(base.files) == {f"model/{name}" for name in tokenizer | weights} | {"training.jsonl", "samples.jsonl"}
    assert names(tuned.files) == {f"adapter/{name}" for name in tokenizer | lora} | {"training.jsonl", "samples.jsonl"}
    assert "speed.jsonl" in names(base.records)
    lessons = rows(tuned.files / "training.jsonl")
    assert [row["step"] for row in lessons] == [1, 2, 3, 4]
    assert {"step", "loss", "grad_norm", "targets", "tokens"} <= lessons[0].keys()
    assert [(row["step"], row["prompt"]) for row in rows(base.files / "samples.jsonl")] == [
        (step, prompt) for step in (0, 2, 4) for prompt in ("diga casa", "diga rio")
    ]
    assert len(table(base, "Answers while it learned")) == 6
    plain = AutoModelForCausalLM.from_pretrained(base.files / "model")
    PeftModel.from_pretrained(plain, tuned.files / "adapter")
    assert AutoTokenizer.from_pretrained(tuned.files / "adapter").chat_template
    assert json.loads((tuned.files / "adapter" / "base.json").read_text())["base"] == "artifact:base#model"


def test_patches_and_packed_rows_are_probed(pair: tuple[Path, Ran, Ran]) -> None:
    for made in pair[1:]:
        lines = ledger(made)
        assert lines["probe"]["applied"] and "exactly 0" in lines["packing"]["why"]
        assert lines["linear_cross_entropy"]["parity_error"] is not None


@pytest.mark.parametrize("word", ["required", "preferred"])
def test_a_job_does_not_pack_what_would_be_mixed(word: str, tmp_path: Path) -> None:
    """gpt-oss without our attention: transformers mixes the documents of a row, probe or not."""
    base = models.folder(tmp_path / "base", "gpt-oss")
    GenerationConfig(eos_token_id=5).save_pretrained(base)
    rows = [{"text": " ".join(f"w{3 + (i * k) % 30}" for k in range(1, 9))} for i in range(12)]
    wanted = spec(
        model={"id": str(base)},
        method="pretrain",
        packing=word,
        data={"train": jsonl(tmp_path / "a.jsonl", rows)},
        optimize={"attention": "off", "probe": False},
    )
    del wanted["architecture"]
    found = one(tmp_path, wanted)
    if word == "required":
        assert (found.result.failure, "see each other" in found.result.message) == ("Infeasible", True)
        return
    assert ledger(created(found))["packing"]["applied"] is False
    speeds = [row["packing_efficiency"] for row in journal.rows(found.records / "speed.jsonl")]
    assert max(speeds) < 1  # rows were padded
    kept = json.loads((found.files / "model" / "generation_config.json").read_text())
    assert kept["eos_token_id"] == [2, 5]  # what its documents end with, too


def test_nothing_of_the_machine_is_in_the_files(pair: tuple[Path, Ran, Ran]) -> None:
    for made in pair[1:]:
        for path in (made.files / name for name in names(made.files)):
            content = path.read_bytes()
            if path.suffix == ".safetensors":  # after the header are numbers, in which a short name is found by chance
                content = content[: 8 + int.from_bytes(content[:8], "little")]
            for secret in (str(pair[0]), f"{Path.home()}/", socket.gethostname(), "tokens_per_s"):
                assert secret.encode() not in content, (path, secret)


@pytest.mark.slow
def test_a_second_apply_does_nothing_and_a_second_store_holds_the_same(pair: tuple[Path, Ran, Ran]) -> None:
    folder, base, tuned = pair
    again = train(folder, spec(**ANSWERS), adapter(**ANSWERS))
    assert [found.result.action for found in again] == ["reused", "reused"]
    other = train(folder, spec(**ANSWERS), adapter(**ANSWERS), store="other")
    for first, second in zip((base, tuned), other, strict=True):
        assert created(second).manifest["digest"] == first.manifest["digest"]


BROKEN: dict[str, tuple[Any, str]] = {
    "json": ('{"messages": [', "JSON"),
    "field": ({"texts": "a"}, "messages"),
    "order": ({"messages": [said("assistant", "a"), said("assistant", "b")]}, "assistant"),
    "empty": ({"messages": []}, "empty"),
    "role": ({"messages": [said("user", "a"), said("robot", "b")]}, "robot"),
    "nothing": ({"messages": [said("user", "a")]}, ""),
    "type": ({"messages": "a"}, "messages"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_row_stops_the_job_with_its_place(tmp_path: Path, model: str, case: str) -> None:
    row, word = BROKEN[case]
    good = {"messages": [said("user", "diga rio"), said("assistant", "rio")]}
    jsonl(tmp_path / "bad.jsonl", [good, good, row, good])
    found = one(tmp_path, on(model, data={"train": "bad.jsonl"}))
    assert (found.result.action, found.result.failure, found.result.exit_code) == ("failed", "DataInvalid", 1)
    assert "bad.jsonl:3: " in found.result.message and "on_error: skip" in found.result.message
    assert word in found.result.message
    assert "Traceback" not in found.result.message


def test_a_corpus_without_anything_to_learn_is_an_error_with_an_example(tmp_path: Path, model: str) -> None:
    jsonl(tmp_path / "bad.jsonl", [{"messages": [said("user", "a")]}] * 3)
    found = one(tmp_path, on(model, data={"train": "bad.jsonl", "on_error": "skip"}))
    assert found.result.failure == "DataInvalid", found.result
    assert "bad.jsonl:1" in found.result.message


def test_a_template_of_ones_own_is_used_and_kept(tmp_path: Path, model: str) -> None:
    text = (
        "{% for m in messages %}{{ m['role'] }}: {% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
        "{{ eos_token }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    (tmp_path / "my.jinja").write_text(text)
    found = created(one(tmp_path, on(model, data={"train": "chat.jsonl", "template": "my.jinja"})))
    assert (found.files / "adapter" / "chat_template.jinja").read_text() == text
