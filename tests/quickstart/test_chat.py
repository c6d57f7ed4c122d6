"""The quickstart's conversations: as the generator writes them, small, and never asked twice where it matters."""

from __future__ import annotations

import json
from pathlib import Path

from runner.schema.load import load
from tests.quickstart.chat import written

QUICKSTART = Path(__file__).parents[2] / "specs" / "quickstart"
FILES = {name: QUICKSTART / "chat" / f"{name}.jsonl" for name in ("train", "validation")}


def asked(conversations: list[list[dict[str, str]]]) -> set[str]:
    return {message["content"] for one in conversations for message in one if message["role"] == "user"}


def test_the_committed_files_are_the_generators() -> None:
    found = {
        name: [json.loads(line)["messages"] for line in path.read_text("utf-8").splitlines()]
        for name, path in FILES.items()
    }
    assert found == written()
    assert sum(path.stat().st_size for path in FILES.values()) <= 500_000


def test_what_is_measured_and_shown_is_nowhere_in_what_is_learned() -> None:
    conversations = written()
    learned = asked(conversations["train"])
    assert not learned & asked(conversations["validation"])
    (loaded,) = load([str(QUICKSTART / "chat.yaml")])
    prompts = loaded.spec.evaluation.prompts
    assert prompts and set(prompts) <= asked(conversations["validation"])


def test_every_answer_is_one_line_of_json() -> None:
    for conversation in written()["validation"]:
        for message in conversation:
            if message["role"] == "assistant":
                assert "\n" not in message["content"]
                assert isinstance(json.loads(message["content"]), dict)
