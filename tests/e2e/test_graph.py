"""The quickstart's graph: fine-tune, transcribe, quantise, transcribe again, embed. What changes runs, and no more."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.helpers import ROOT, manifest, runner

QUICKSTART = ROOT / "specs" / "quickstart"
FIRST = {"quickstart-asr", "quickstart-finetuned", "quickstart-chat"}
QUANTISED = {"quickstart-quantized", "quickstart-quantized-asr", "quickstart-words"}  # it, and what is made of it
FINETUNED = {"quickstart-finetuned", "quickstart-finetuned-asr", *QUANTISED}
ALL = FIRST | FINETUNED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the quickstart."""
    return Path(shutil.copytree(QUICKSTART, tmp_path / "quickstart"))


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} in {file.name}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def _planned(folder: Path, *words: str) -> dict[str, dict[str, Any]]:
    store = str(folder.parent / "store")
    said = runner("plan", str(folder), "-o", "json", "--store", store, *words, cwd=folder.parent).stdout
    return {step["name"]: step for step in json.loads(said)["steps"]}


def _refused(folder: Path) -> str:
    store = str(folder.parent / "store")
    return runner("plan", str(folder), "--store", store, cwd=folder.parent, check=2).stderr


def _apply(folder: Path, *words: str) -> set[str]:
    """Apply the folder to its end; names of the steps that ran."""
    store = folder.parent / "store"
    done = runner("apply", str(folder), "-o", "json", "--store", str(store), *words, cwd=folder.parent, timeout=900)
    steps = json.loads(done.stdout)["steps"]
    assert {step["action"] for step in steps} <= {"created", "reused"}
    assert {step["name"] for step in steps} == ALL
    return {step["name"] for step in steps if step["action"] == "created"}


def _lines(folder: Path, name: str, file: str) -> list[dict[str, Any]]:
    path = folder.parent / "store" / name / "v1" / "files" / file
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_whole_graph_is_planned_before_anything_ran(folder: Path) -> None:
    steps = _planned(folder)
    assert {name: step["action"] for name, step in steps.items()} == dict.fromkeys(ALL, "create")
    assert {name: set(step["after"]) for name, step in steps.items()} == {
        "quickstart-asr": set(),
        "quickstart-chat": set(),
        "quickstart-finetuned": set(),
        "quickstart-finetuned-asr": {"quickstart-finetuned"},
        "quickstart-quantized": {"quickstart-finetuned"},
        "quickstart-quantized-asr": {"quickstart-quantized"},
        "quickstart-words": {"quickstart-quantized", "quickstart-quantized-asr"},
    }


def test_references_that_lead_nowhere(folder: Path) -> None:
    embed = folder / "embed.yaml"
    _edit(embed, "model: artifact:quickstart-quantized\n", "model: artifact:quickstart-quantised\n")
    said = _refused(folder)
    assert "embed.yaml:9:8: model.id: no artifact is called 'quickstart-quantised'" in said
    assert "did you mean 'quickstart-quantized'?" in said
    alone = runner("plan", str(embed), "--store", str(folder.parent / "store"), cwd=folder.parent, check=2).stderr
    assert "no artifact is called 'quickstart-quantized-asr', neither in these specs nor in the store; give" in alone
    _edit(embed, "model: artifact:quickstart-quantised\n", "model: artifact:quickstart-quantized#int8\n")
    said = _refused(folder)
    assert "'quickstart-quantized' will have no 'int8': it makes fp16, int8-dynamic, int4-weights, onnx-int8" in said
    _edit(embed, "model: artifact:quickstart-quantized#int8\n", "model: artifact:quickstart-words\n")
    assert "these specs need each other: quickstart-words -> quickstart-words" in _refused(folder)


@pytest.mark.slow
def test_what_changes_runs_again_and_what_is_made_of_it(folder: Path) -> None:
    assert _apply(folder) == ALL
    _check_results(folder)
    runner("artifacts", "verify", "--all", "--store", str(folder.parent / "store"), cwd=folder.parent)

    assert _apply(folder) == set()
    for file in folder.glob("*.yaml"):
        file.write_text("# another word\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    assert _apply(folder) == set(), "a comment decides nothing"

    _edit(folder / "quantize.yaml", "pick: smallest ", "pick: most_accurate ")
    assert _planned(folder)["quickstart-quantized"]["reasons"] == ["pick smallest -> most_accurate"]
    assert _apply(folder, "--local") == QUANTISED

    finetune = folder / "finetune.yaml"
    before = finetune.read_text(encoding="utf-8")
    after = re.sub(r"epochs: [2-9]", "epochs: 1", re.sub(r"max_wer: [0-9.]+", "max_wer: 1", before))
    finetune.write_text(after, encoding="utf-8")
    assert _apply(folder, "--local") == FINETUNED

    finetune.write_text(before, encoding="utf-8")
    _edit(folder / "quantize.yaml", "pick: most_accurate ", "pick: smallest ")
    assert _apply(folder, "--local") == set(), "what was there before is there still"


def _check_results(folder: Path) -> None:
    store = folder.parent / "store"
    tuned, small = manifest(store, "quickstart-finetuned"), manifest(store, "quickstart-quantized")
    report = json.loads((store / "quickstart-finetuned" / "v1" / "report.json").read_text(encoding="utf-8"))
    assert report["intervals"]["wer"][1] < report["intervals"]["wer_before"][0], "clearly better than before"
    within = {
        n: m for n, m in small["metrics"]["variants"].items() if m["wer_rise"] <= 0.01 and m["compression"] >= 3.5
    }
    assert small["metrics"]["picked"] == max(within, key=lambda name: within[name]["compression"])

    by_tuned, by_small = (manifest(store, f"quickstart-{name}-asr") for name in ("finetuned", "quantized"))
    assert by_tuned["metrics"]["wer"] == tuned["metrics"]["wer"] == small["metrics"]["unquantised_wer"]
    assert by_small["metrics"]["wer"] == small["metrics"]["wer"]

    heard = _lines(folder, "quickstart-quantized-asr", "transcripts.jsonl")
    embedded = _lines(folder, "quickstart-words", "index.jsonl")
    assert [row["path"] for row in embedded] == [row["path"] for row in heard]
    words = [[word["word"] for word in row["words"]] for row in embedded]
    assert words == [row["text"].split() for row in heard]
    assert manifest(store, "quickstart-words")["metrics"]["vectors"] == sum(map(len, words))
    _check_chat(folder)


def _check_chat(folder: Path) -> None:
    """The last answers to questions that it never learned from: each in its form, a capital right."""
    rows = [json.loads(line) for line in (folder / "chat" / "validation.jsonl").read_text("utf-8").splitlines()]
    right = {
        question["content"]: answer["content"]
        for row in rows
        for question, answer in zip(row["messages"][::2], row["messages"][1::2], strict=True)
    }
    last = {row["prompt"]: row["answer"] for row in _lines(folder, "quickstart-chat", "samples.jsonl")}
    assert len(last) == 4
    for question, answer in last.items():
        assert set(json.loads(answer)) == set(json.loads(right[question])), answer
    assert any(answer == right[question] for question, answer in last.items()), last
