"""`messages`: conversations as in OpenAI's API, with `tools` beside them.

What templates read is made alike: text parts are joined to one text, arguments of a call that stand as JSON become an
object, and keys without a value are left out. Other keys of a message stay: templates read `reasoning_content`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from runner.llm.data import fields
from runner.llm.data.fields import Record
from runner.llm.data.sample import BrokenSampleError, Chat

COLUMNS = ("messages", "tools")
ROLES = ("system", "developer", "user", "assistant", "tool")
# who may speak after whom; an assistant that called tools is answered by them, one that did not by a user
AFTER = {
    "": {"system", "developer", "user"},
    "system": {"system", "developer", "user"},
    "developer": {"system", "developer", "user"},
    "user": {"assistant"},
    "assistant": {"user"},
    "call": {"tool"},
    "tool": {"tool", "assistant"},
}


def fits(record: Record) -> bool:
    """Whether the row has a list of messages, each with `role`."""
    found = fields.decoded(record.get("messages"))
    return isinstance(found, list) and all(isinstance(one, dict) and "role" in one for one in found)


def sample(record: Record, *, place: str) -> Chat:
    """The conversation, checked."""
    return Chat(place=place, messages=checked(fields.listed(record, "messages")), tools=tools(record))


def checked(found: Sequence[Any]) -> list[dict[str, Any]]:
    """The messages, each as templates read it, in an order that a conversation can have."""
    if not found:
        raise BrokenSampleError("empty conversation: it has no message")
    made = [_message(number, one) for number, one in enumerate(found, start=1)]
    before = ""
    calls: set[str] = set()
    for number, one in enumerate(made, start=1):
        role = one["role"]
        if role not in AFTER[before]:
            raise BrokenSampleError(_order(number, role, before))
        before = "call" if one.get("tool_calls") else role
        if before == "call":
            calls = {call["id"] for call in one["tool_calls"] if "id" in call}
        elif role == "tool" and calls and one.get("tool_call_id", next(iter(calls))) not in calls:
            raise BrokenSampleError(
                f"wrong tool_call_id: message {number} answers {one['tool_call_id']!r}, called was {_list(calls)}"
            )
    if before not in {"assistant", "call"}:
        raise BrokenSampleError(f"wrong role order: the last message is of {before!r}, and nothing replies to it")
    return made


def tools(record: Record) -> list[dict[str, Any]] | None:
    """The functions that the model may call; None where there is none."""
    if record.get("tools") in (None, "", []):
        return None
    found = [fields.decoded(one) for one in fields.listed(record, "tools")]
    for number, one in enumerate(found, start=1):
        inner = one.get("function", one) if isinstance(one, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            raise BrokenSampleError(f"wrong tool: tool {number} has no name; each is an object with 'function'")
    return found


def _message(number: int, one: Any) -> dict[str, Any]:
    if not isinstance(one, dict):
        raise BrokenSampleError(f"wrong type: message {number} must be an object, got {fields.kind(one)}")
    role = one.get("role")
    if role is None:
        raise BrokenSampleError(f"missing field: message {number} has no 'role'")
    if role not in ROLES:
        raise BrokenSampleError(f"unknown role: {str(role)[:40]!r} in message {number}; known are {', '.join(ROLES)}")
    if one.get("weight") not in (None, 1):
        raise BrokenSampleError(f"not supported: message {number} has a weight, and every reply is learned alike")
    made = {key: value for key, value in one.items() if value is not None} | {"content": _content(number, one)}
    if calls := fields.decoded(made.pop("tool_calls", None)):
        made["tool_calls"] = _calls(number, role, calls)
    elif made["content"] is None or (role == "assistant" and not made["content"].strip()):
        what = "missing field" if made["content"] is None else "empty text"
        raise BrokenSampleError(f"{what}: message {number} of {role!r} says nothing in 'content'")
    return made


def _content(number: int, one: dict[str, Any]) -> str | None:
    content = one.get("content")
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BrokenSampleError(
            f"wrong type: 'content' of message {number} must be text or a list of parts, got {fields.kind(content)}"
        )
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            what = repr(part.get("type")) if isinstance(part, dict) else fields.kind(part)
            raise BrokenSampleError(f"not text: message {number} has a part of {what}; parts of type 'text' are taken")
        if not isinstance(part.get("text"), str):
            raise BrokenSampleError(f"missing field: a part of message {number} has no text in 'text'")
        texts.append(part["text"])
    return "".join(texts)


def _calls(number: int, role: str, calls: Any) -> list[dict[str, Any]]:
    if role != "assistant":
        raise BrokenSampleError(f"wrong role: message {number} of {role!r} has tool_calls, which only assistants make")
    if not isinstance(calls, list):
        raise BrokenSampleError(f"wrong type: tool_calls of message {number} must be a list, got {fields.kind(calls)}")
    return [_call(number, call) for call in calls]


def _call(number: int, call: Any) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BrokenSampleError(f"wrong tool call: message {number} calls a function without a name")
    arguments = function.get("arguments")
    try:
        arguments = json.loads(arguments) if isinstance(arguments, str) else {} if arguments is None else arguments
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise BrokenSampleError(
            f"wrong tool call: arguments of {function['name']!r} in message {number} must be an object, or JSON of one"
        )
    around = {key: value for key, value in call.items() if value is not None} if function is not call else {}
    return around | {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _order(number: int, role: str, before: str) -> str:
    allowed = _list(AFTER[before])
    if not before:
        return f"wrong role order: message {number} is of {role!r}; a conversation begins with {allowed}"
    after = "a tool call" if before == "call" else f"{before!r}"
    return f"wrong role order: message {number} of {role!r} follows {after}, where {allowed} may"


def _list(names: set[str]) -> str:
    return " or ".join(map(repr, sorted(names)))
