"""`runner explain data SPEC`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.cli.main import main

SPEC = """
kind: llm-train
name: chat
architecture: {type: llama, vocabulary: 300}
method: sft
data: {train: chat.jsonl, validation: [{source: held.jsonl, format: text}]}
batch: {seq_len: 24}
train: {max_steps: 1}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    said = [{"role": "user", "content": "Ping?"}, {"role": "assistant", "content": "Pong. " * 9}]
    (tmp_path / "chat.jsonl").write_text(f"{json.dumps({'messages': said})}\n" * 3)
    (tmp_path / "held.jsonl").write_text(json.dumps({"text": "Ping? Pong."}) + "\n")
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


def test_shows_the_first_samples_as_tokens(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(spec.parent / "store")
    assert main(["explain", "--store", store, "data", str(spec), "--samples", "2"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("chat: loss on responses; what is learned stands in [[ ]], a bar between two tokens\n")
    assert "data.train[0]: chat.jsonl: format messages (columns messages)\n\nchat.jsonl:1: " in out
    assert "learned, longer than batch.seq_len 24\n<|im_start|>|" in out
    assert "chat.jsonl:2" in out
    assert "chat.jsonl:3" not in out
    assert "held.jsonl:1: not used: nothing to learn: plain text has no responses" in out
    assert main(["explain", "--store", store, "data", str(spec), "--samples", "1", "-o", "json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    (document,) = facts["corpora"][0]["documents"]
    assert sum(len(token["ids"]) for token in document["tokens"] if token["learned"]) == document["learned"]
    assert document["tokens"][-2]["text"] == "<|im_end|>"
    assert not any((spec.parent / "store").glob("*/v*"))  # nothing was made


def test_added_tokens_are_one_piece_as_they_are_in_training(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec.write_text(SPEC + "tokens: {add: [Pong]}\n")
    assert (
        main(["explain", "--store", str(spec.parent / "store"), "data", str(spec), "--samples", "1", "-o", "json"]) == 0
    )
    (facts,) = json.loads(capsys.readouterr().out)
    assert [token["text"] for token in facts["corpora"][0]["documents"][0]["tokens"]].count("Pong") == 9


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data"], "`runner explain data` needs a spec: runner explain data SPEC"),
        (["llm-train", "x.yaml"], "'x.yaml' is one word too many"),
        (["data", "x.yaml", "--samples", "0"], "--samples 0 is out of range; allowed are 1 to 1000"),
    ],
)
def test_wrong_words(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_spec_that_learns_from_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "specs" / "quickstart" / "asr.yaml"
    assert main(["explain", "--store", str(tmp_path), "data", str(path)]) == 2
    assert "learns from text; `runner explain data` is for llm-train" in capsys.readouterr().err
