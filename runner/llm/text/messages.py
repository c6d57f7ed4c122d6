"""Messages as chat templates take them: content as text, arguments of tool calls as objects."""

from __future__ import annotations

import json
from typing import Any

from runner.llm.data.sample import BrokenSampleError
from runner.llm.text.render import Message


def plain(messages: list[Message], *, parts: bool) -> list[Message]:
    """``messages`` without what templates stumble over.

    Fields that are None, as tables fill them, are left out; content that is None becomes "", or templates would write
    "None"; parts of text are joined by line breaks, unless the template takes ``parts``; arguments of tool calls that
    are JSON in a text, as in OpenAI's API, become objects, or templates would quote them twice. Raises
    BrokenSampleError for parts that are no text, arguments that are no JSON, and a reply without anything in it.
    """
    return [_plain(message, number, parts=parts) for number, message in enumerate(messages, start=1)]


def _plain(message: Message, number: int, *, parts: bool) -> Message:
    made = {name: value for name, value in message.items() if value is not None}
    made["content"] = _content(made.get("content", ""), number, parts=parts)
    if calls := made.get("tool_calls"):
        made["tool_calls"] = [_call(call, number) for call in calls]
    elif made.get("role") == "assistant" and not _says(made):
        raise BrokenSampleError(f"message {number}: the reply is empty: it has no content and no tool_calls")
    return made


def _content(content: Any, number: int, *, parts: bool) -> Any:
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise BrokenSampleError(f"message {number}: a part of content is {kind!r}; a text model learns text alone")
    texts = [{"type": "text", "text": part["text"]} for part in content]
    return texts if parts else "\n".join(part["text"] for part in texts)


def _says(message: Message) -> bool:
    content = message["content"]
    said = content if isinstance(content, str) else "".join(part["text"] for part in content)
    return bool(said.strip() or message.get("reasoning_content"))


def _call(call: dict[str, Any], number: int) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return call
    try:
        function = function | {"arguments": json.loads(arguments or "{}")}
    except ValueError as error:
        name = function.get("name")
        raise BrokenSampleError(
            f"message {number}: the arguments of the call of {name!r} are no JSON: {error}"
        ) from None
    return call | {"function": function} if "function" in call else function
