"""Learning a tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from runner.llm.data.sample import Chat, Completion, Text
from runner.llm.text.vocabulary import learn, texts
from runner.schema.errors import JobError

LINES = ["A rainha comprou 1203 maçãs.\n", "The queen bought 1203 apples.\n", "日本 🙂\n"] * 20


def test_learns_bytes_and_pairs_and_gives_every_text_back(tmp_path: Path) -> None:
    tokenizer = learn(iter(LINES), size=305, special=["<|tool|>"])
    assert len(tokenizer) == 305
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    assert len(tokenizer("<|tool|>")["input_ids"]) == 1
    assert len(tokenizer("1203")["input_ids"]) == 4
    for text in ("never seen: ß\t\x00", *LINES):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == tokenizer.chat_template


def test_the_same_texts_give_the_same_bytes() -> None:
    first, second = (learn(iter(LINES), size=330).backend_tokenizer.to_str() for _ in range(2))
    assert first == second


def test_half_characters_do_not_stop_it() -> None:
    assert len(learn(iter(["Pong. \ud83d"]), size=300)) >= 259


def test_a_size_without_room_for_the_bytes_is_refused() -> None:
    with pytest.raises(JobError, match="too small: 256 bytes and 53 special tokens need 309; set architecture"):
        learn(iter(LINES), size=300, special=[f"<{number}>" for number in range(50)])


def test_texts_of_samples() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None},
    ]
    samples = [
        Chat(place="x:1", messages=messages),
        Completion(place="x:2", prompt="c", completion="d"),
        Text(place="x:3", text="e"),
    ]
    assert list(texts(samples)) == ["a", "cd", "e"]
