"""Conversations, tokenizers, and templates as models were published with: those that TRL carries."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from runner.llm.text import shipped, template
from runner.llm.text.render import Rendered
from runner.llm.text.template import Template
from runner.llm.text.vocabulary import learn

CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": "é"}}}
CALLED = '{"name": "f", "arguments": {"a": "é"}}'
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
TOKENS = tuple(dict.fromkeys(token for needed in shipped.NEEDS.values() for token in needed))


def ask(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def say(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


SYSTEM = {"role": "system", "content": "S"}
MULTI = [ask("Q1 "), say(" A1"), ask("Q2"), say("A2\n")]
TOLD = [SYSTEM, *MULTI]
WITH_CALLS = [SYSTEM, ask("Q"), say("", tool_calls=[CALL]), {"role": "tool", "content": "3"}, say("A")]
TWO_CALLS = [
    *[ask("Q"), say("hm", tool_calls=[CALL, CALL]), {"role": "tool", "content": "3"}],
    *[{"role": "tool", "content": "4"}, say("A"), ask("Q"), say("B")],
]
THOUGHT = [ask("Q"), say("A", reasoning_content="R"), ask("Q"), say("<think>\nR2\n</think>\n\nB")]
XML = f"<tool_call>\n{CALLED}\n</tool_call>"


def published(name: str) -> str:
    found = importlib.util.find_spec("trl")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "chat_templates" / f"{name}.jinja").read_text("utf-8")


def tokenizer(chat: Any = None, special: tuple[str, ...] = TOKENS) -> PreTrainedTokenizerBase:
    made = learn(iter(["Ping? Pong."]), size=300, special=["<s>", "</s>", *special])
    made.bos_token, made.eos_token, made.chat_template = "<s>", "</s>", chat
    return made


def chosen(made: PreTrainedTokenizerBase, **changes: Any) -> Template:
    found = template.choose(made, **{"given": None, "family": "llama"} | changes)
    assert found is not None
    return found


def learned(rendered: Rendered) -> list[str]:
    return [rendered.text[start:stop] for start, stop in rendered.spans]
