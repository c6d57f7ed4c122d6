"""`sharegpt`: `conversations` of turns with `from` and `value`; `system` and `tools` may stand beside them."""

from __future__ import annotations

from typing import Any

from runner.llm.data import fields
from runner.llm.data.fields import Record
from runner.llm.data.formats import messages
from runner.llm.data.sample import BrokenSampleError, Chat

COLUMNS = ("conversations", "system", "tools")
ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_call": "assistant",
}


def fits(record: Record) -> bool:
    """Whether the row has a list of turns, each with `from`."""
    turns = fields.decoded(record.get("conversations"))
    return isinstance(turns, list) and all(isinstance(turn, dict) and "from" in turn for turn in turns)


def sample(record: Record, *, place: str) -> Chat:
    """The conversation as messages."""
    turns = [_message(number, turn) for number, turn in enumerate(fields.listed(record, "conversations"), start=1)]
    if system := fields.text(record, "system", default=""):
        turns.insert(0, {"role": "system", "content": system})
    return Chat(place=place, messages=messages.checked(turns), tools=messages.tools(record))


def _message(number: int, turn: Any) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise BrokenSampleError(f"wrong type: turn {number} must be an object, got {fields.kind(turn)}")
    for name in ("from", "value"):
        if not isinstance(turn.get(name), str):
            raise BrokenSampleError(f"missing field: turn {number} has no text in {name!r}")
    who, said = turn["from"], turn["value"]
    if who not in ROLES:
        raise BrokenSampleError(f"unknown role: {who[:40]!r} in turn {number}; known are {', '.join(ROLES)}")
    if who == "function_call":
        calls = fields.decoded(said)
        return {"role": "assistant", "tool_calls": calls if isinstance(calls, list) else [calls]}
    return {"role": ROLES[who], "content": said}
