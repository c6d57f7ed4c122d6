"""What the assistant writes in a conversation, as characters of the text that a chat template makes of it.

Three ways, none of which looks for strings: the template's own `{% generation %}` marks; those of a twin, a template
of ours that writes the very same text; or the template's generation prompt: what a conversation has up to a reply, with
the prompt for it, begins what it has with the reply, and the rest is the reply.
"""

from __future__ import annotations

from collections.abc import Mapping

from runner.llm.data.sample import BrokenSampleError
from runner.llm.text.render import Message, Rendered, Span, Tools, marked, render


def found(
    text: str,
    messages: list[Message],
    tools: Tools,
    *,
    special: Mapping[str, str],
    twin: str | None,
    stops: tuple[str, ...],
) -> list[Rendered]:
    """The texts of one conversation with the spans to learn in them.

    One text, unless the template writes a reply otherwise once the conversation goes on, as Qwen3 does, which drops
    the thinking of earlier turns: such a reply is learned in a text of its own, which ends with it, as the model would
    have written it. What ends a reply belongs to it. Raises BrokenSampleError where a prompt does not begin its reply.
    """
    whole = render(text, messages, tools, special=special)
    if marked(text):
        return [Rendered(text=whole.text, spans=tuple(_ended(whole.text, span, stops) for span in whole.spans))]
    replies = [number for number, message in enumerate(messages) if message.get("role") == "assistant"]
    made = None if twin is None else _by_twin(twin, whole.text, messages, tools, special=special)
    if made is not None and len(made.spans) == len(replies):
        return [made]
    return _by_prompts(text, whole.text, messages, tools, replies=replies, special=special, stops=stops)


def _by_twin(
    twin: str, text: str, messages: list[Message], tools: Tools, *, special: Mapping[str, str]
) -> Rendered | None:
    """The same text with the twin's spans; None where the twin writes another one, or refuses."""
    try:
        made = render(twin, messages, tools, special=special)
    except BrokenSampleError:
        return None
    return made if made.text == text else None


def _by_prompts(
    text: str,
    whole: str,
    messages: list[Message],
    tools: Tools,
    *,
    replies: list[int],
    special: Mapping[str, str],
    stops: tuple[str, ...],
) -> list[Rendered]:
    inside: list[Span] = []
    alone: list[Rendered] = []
    for number in replies:
        prompt = render(text, messages[:number], tools, special=special, prompt=True).text
        until = render(text, messages[: number + 1], tools, special=special).text
        if not until.startswith(prompt):
            raise BrokenSampleError(_torn(prompt, until, number + 1))
        span = (len(prompt), _end(until, stops))
        if whole.startswith(until):
            inside.append(span)
        else:
            alone.append(Rendered(text=until, spans=(span,)))
    last = Rendered(text=whole, spans=tuple(inside))
    return [*alone, last] if inside or not alone else alone


def _torn(prompt: str, until: str, number: int) -> str:
    same = next((at for at, (a, b) in enumerate(zip(prompt, until, strict=False)) if a != b), len(until))
    return (
        f"torn reply: the chat template writes message {number} otherwise than the prompt for it begins: "
        f"{prompt[same : same + 40]!r} in the prompt, {until[same : same + 40]!r} with the reply; "
        f"give data.template with {{% generation %}} marks around what is learned"
    )


def _ended(text: str, span: Span, stops: tuple[str, ...]) -> Span:
    """The span with the token that ends the reply, where it follows directly."""
    start, stop = span
    return start, stop + next((len(end) for end in stops if text.startswith(end, stop)), 0)


def _end(text: str, stops: tuple[str, ...]) -> int:
    """Where a reply that ends ``text`` ends: white space after its end of turn is the template's, not the model's."""
    bare = text.rstrip()
    return len(bare) if bare.endswith(stops) else len(text)
