"""What `runner explain data` shows."""

from __future__ import annotations

import json

import pytest

from runner.llm.data.sample import Chat, Completion, Text
from runner.llm.text import template
from runner.llm.text.preview import MOST, CorpusShown, Preview, shown
from runner.llm.text.tokens import Encoder
from runner.llm.text.vocabulary import learn


@pytest.fixture(scope="module")
def preview() -> Preview:
    tokenizer = learn(iter(["user assistant\nPing? Pong."] * 9), size=300)
    chosen = template.choose(tokenizer, given=None, family="llama")
    assert chosen is not None
    samples = [
        Chat(
            place="chat.jsonl:1",
            messages=[{"role": "user", "content": "Ping?"}, {"role": "assistant", "content": "Pong. 🙂\n"}],
        ),
        Text(place="chat.jsonl:2", text="x"),
        Completion(place="chat.jsonl:3", prompt="\x1b[31m\\n", completion="y" * (MOST + 10)),
        Text(place="chat.jsonl:4", text="never looked at"),
    ]
    documents = shown(iter(samples), Encoder(tokenizer, chosen, loss_on="responses"), tokenizer, most=3)
    corpus = CorpusShown(
        field="data.train[0]", source="chat.jsonl", format="messages", why="columns messages", documents=documents
    )
    return Preview(name="chat", loss_on="responses", template=chosen.why, seq_len=50, corpora=(corpus,))


def test_plain_lines(preview: Preview) -> None:
    lines = preview.lines(colour=False)
    assert lines[:4] == [
        "chat: loss on responses; what is learned stands in [[ ]], a bar between two tokens",
        "chat template: the tokenizer's own; its own generation marks say what is learned",
        "",
        "data.train[0]: chat.jsonl: format messages (columns messages)",
    ]
    at = next(number for number, line in enumerate(lines) if line.startswith("chat.jsonl:1: "))
    (whole,) = [one for one in preview.corpora[0].documents if one.place == "chat.jsonl:1"]
    assert lines[at] == f"chat.jsonl:1: {whole.count} tokens, {whole.learned} learned"
    assert whole.learned == sum(len(token.ids) for token in whole.tokens if token.learned)
    text = "\n".join(lines[at + 1 : at + 6])
    assert text.replace("|", "") == "<im_start>user⏎\nPing?<im_end>⏎\n<im_start>assistant⏎\n[[Pong. 🙂⏎\n<im_end>]]⏎"
    assert "|🙂|" in text
    assert any(line.startswith("chat.jsonl:2: not used: nothing to learn: plain text has no") for line in lines)
    assert "chat.jsonl:3: 2,018 tokens, 2,011 learned, longer than batch.seq_len 50" in lines
    assert lines[-2].startswith("\\x1b|[|3|1|m|\\|n[[y|y")  # nothing steers the terminal
    assert lines[-1] == "... and 18 more tokens"


def test_colours_and_json_say_the_same(preview: Preview) -> None:
    coloured = "\n".join(preview.lines(colour=True))
    assert "\x1b[31m" not in coloured
    assert "\x1b[1;32m" in coloured
    facts = json.loads(json.dumps(preview.to_json()))
    first, second, third = facts["corpora"][0]["documents"]
    assert [token["text"] for token in first["tokens"] if token["learned"]][-2:] == ["\n", "<|im_end|>"]
    assert next(token for token in first["tokens"] if token["text"] == "🙂")["learned"]
    assert (second["tokens"], second["count"]) == ([], 0)
    assert (len(third["tokens"]), third["count"], third["learned"]) == (MOST, 2018, 2011)
