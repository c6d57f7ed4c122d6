"""A chat template rendered to text and the spans that its generation marks enclose."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from runner.llm.data.readers.row import MAX_BYTES
from runner.llm.data.sample import BrokenSampleError
from runner.schema.errors import JobError

Message = dict[str, Any]
Tools = list[dict[str, Any]] | None
Span = tuple[int, int]
MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
# What goes wrong in a template that meets data it was not made for: `None + "text"`, a missing key, raise_exception()
FAILURES = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
# Templates that tell the date would make other tokens tomorrow: this is the date that Llama 3 tells without a clock
DAY = date(2024, 7, 26)
LONGEST = 2 * MAX_BYTES  # characters: what is more was made by a loop of the template, which may go on and on


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A conversation as text; ``spans`` are what the assistant writes in it, as characters [start, stop)."""

    text: str
    spans: tuple[Span, ...] = ()


def render(
    template: str,
    messages: list[Message],
    tools: Tools = None,
    *,
    special: Mapping[str, str],
    prompt: bool = False,
) -> Rendered:
    """Render in transformers' sandbox; ``special`` are the tokenizer's named tokens, ``prompt`` asks for a reply's
    beginning after the last message. Raises BrokenSampleError with the template's own reason."""
    try:
        (text,), spans = render_jinja_template(
            conversations=[messages],
            tools=tools,
            chat_template=template,
            add_generation_prompt=prompt,
            return_assistant_tokens_mask=marked(template),
            **special,
            strftime_now=DAY.strftime,
        )
    except FAILURES as error:
        raise BrokenSampleError(f"the chat template refuses it: {str(error) or type(error).__name__}") from None
    except MemoryError:
        raise BrokenSampleError("the chat template writes more than the memory holds") from None
    if len(text) > LONGEST:
        raise BrokenSampleError(
            f"the chat template writes {len(text):,} characters, and at most {LONGEST:,} are taken, twice a row's"
        )
    return Rendered(text=text, spans=tuple(spans[0]) if spans else ())


def check(template: str, *, origin: str) -> None:
    """Raises JobError where the template is no Jinja."""
    if not template.strip():
        raise JobError(f"the chat template ({origin}) is empty", failure="DataInvalid")
    try:
        render_jinja_template(conversations=[[{"role": "user", "content": ""}]], chat_template=template)
    except jinja2.TemplateSyntaxError as error:
        raise JobError(
            f"the chat template ({origin}) is broken in line {error.lineno}: {error.message}", failure="DataInvalid"
        ) from None
    except (*FAILURES, MemoryError):
        return  # it compiles; what it wants of messages is seen with each sample


def marked(template: str) -> bool:
    """Whether the template says by `{% generation %}` what the assistant writes."""
    return MARK.search(template) is not None
