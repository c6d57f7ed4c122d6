"""Whether a chat template writes what messages say: some leave out roles or tools in silence."""

from __future__ import annotations

from runner.llm.data.sample import BrokenSampleError
from runner.llm.text.render import Message, Tools, render
from runner.llm.text.template import Template

Key = tuple[str, bool]


class Heard:
    """Tries each role once, at the beginning of a conversation and later in it, and tools once."""

    def __init__(self) -> None:
        self._seen: set[Key] = set()

    def check(self, template: Template, messages: list[Message], tools: Tools) -> None:
        """Raises BrokenSampleError that names what the template leaves out."""
        new = {key: at for at, message in reversed(list(enumerate(messages))) for key in _keys(message, at)}
        new |= {("tools", True): 0} if tools else {}
        new = {key: at for key, at in new.items() if key not in self._seen}
        if not new:
            return
        whole = _written(messages, tools, template)
        for key, at in new.items():
            changed, given = _without(key[0], messages, at), None if key[0] == "tools" else tools
            if _same(whole, changed, given, template):
                raise BrokenSampleError(_left_out(key, at))
            self._seen.add(key)


def _keys(message: Message, at: int) -> list[Key]:
    if message.get("tool_calls"):
        return [("tool_calls", True)]
    return [(f"role {message.get('role')!r}", at == 0)]


def _without(what: str, messages: list[Message], at: int) -> list[Message]:
    """The messages with another content there, or without its calls."""
    if what == "tools":
        return messages
    message = messages[at]
    if what == "tool_calls":
        other = {name: value for name, value in message.items() if name != "tool_calls"}
    else:
        other = message | {"content": f"{message.get('content') or ''}."}
    return [*messages[:at], other, *messages[at + 1 :]]


def _same(whole: str, messages: list[Message], tools: Tools, template: Template) -> bool:
    try:
        return _written(messages, tools, template) == whole
    except BrokenSampleError:
        return False  # it looks at what was taken away


def _written(messages: list[Message], tools: Tools, template: Template) -> str:
    return render(template.of(tools), template.plain(messages), tools, special=template.special).text


def _left_out(key: Key, at: int) -> str:
    what = {"tools": "the tools", "tool_calls": f"the tool_calls of message {at + 1}"}.get(
        key[0], f"message {at + 1}, of {key[0]}"
    )
    return f"the chat template leaves out: {what}; give data.template with one that writes that, or remove it"
