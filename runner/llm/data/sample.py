"""A sample: one row of a corpus as people wrote it, whatever its format was. Each knows its place, `chat.jsonl:12`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class BrokenSampleError(ValueError):
    """A row that is no sample: the text is the reason, for people; whoever reads the file knows the place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat:
    """Messages as in OpenAI's API: `role`, `content` (text, parts or None), `tool_calls`, `tool_call_id`, `name`."""

    place: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """A plain prompt and what follows it; no template goes around them."""

    place: str
    prompt: str
    completion: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """Plain text."""

    place: str
    text: str


Sample = Chat | Completion | Text
