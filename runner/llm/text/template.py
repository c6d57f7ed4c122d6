"""Which chat template a conversation goes through, and how what the assistant writes in it is found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import PreTrainedTokenizerBase

from runner.llm.data.sample import BrokenSampleError
from runner.llm.text import spans
from runner.llm.text.render import Message, Rendered, Tools, check, marked, render
from runner.llm.text.shipped import FAMILIES, of_family, shipped
from runner.registry.recognise import families
from runner.schema.errors import JobError

ASK = {"role": "user", "content": "Ping?"}
REPLY = {"role": "assistant", "content": "Pong."}
SYSTEM = {"role": "system", "content": "Be brief."}
# A twin of ours must write what the template writes in all of these that the template takes
PROBES: tuple[list[Message], ...] = ([ASK, REPLY], [ASK, REPLY, ASK, REPLY], [SYSTEM, ASK, REPLY])


@dataclass(frozen=True, kw_only=True)
class Template:
    """A chosen template. ``text`` is saved with the model; the rest is how samples go through it."""

    text: str
    origin: str  # in words: "the tokenizer's own"
    way: Literal["marks", "twin", "prompts"]  # how spans are found: see ``spans``
    tools: str | None = None  # the template for conversations with tools, where the tokenizer has two
    twin: str | None = None  # name of the template of ours that writes the same text, with marks
    stops: tuple[str, ...] = ()  # what ends a reply
    special: Mapping[str, str]  # the tokenizer's named tokens
    parts: bool = False  # whether it takes content as a list of parts alone, as some of models that see do

    @property
    def why(self) -> str:
        """Where it comes from and how replies are found, for the log."""
        how = {
            "marks": "its own generation marks say what is learned",
            "twin": f"it writes what our marked {self.twin!r} writes, whose marks say what is learned",
            "prompts": "what follows its own generation prompts is learned",
        }
        told = f"chat template: {self.origin}; {how[self.way]}"
        return told if self.ends else f"{told}; it ends replies with none of {', '.join(self.stops)}"

    @property
    def ends(self) -> bool:
        """Whether a reply ends in a token at which generation stops; a model learns no end where it does not."""
        return not self.reply or self.reply.endswith(self.stops)

    @property
    def reply(self) -> str:
        """A reply as it is learned, without white space after it; "" where the template wants other messages."""
        try:
            written = self.write(PROBES[0], None)[-1]
        except BrokenSampleError:
            return ""
        return "".join(written.text[start:stop] for start, stop in written.spans[-1:]).rstrip()

    def write(self, messages: list[Message], tools: Tools, *, replies: bool = True) -> list[Rendered]:
        """The texts that a conversation makes, most often one; see ``spans.found``. Without ``replies`` one, in which
        nothing is looked for. Raises BrokenSampleError with a reason."""
        text, made = self.of(tools), self.plain(messages)
        if not replies:
            return [Rendered(text=render(text, made, tools, special=self.special).text)]
        twin = shipped()[self.twin] if self.twin else None
        return spans.found(text, made, tools, special=self.special, twin=twin, stops=self.stops)

    def ask(self, prompt: str) -> str:
        """The text after which the assistant answers ``prompt``. Raises JobError where the template refuses it."""
        try:
            asked = self.plain([{"role": "user", "content": prompt}])
            return render(self.text, asked, special=self.special, prompt=True).text
        except BrokenSampleError as error:
            raise JobError(f"evaluation.prompts: {prompt[:60]!r}: {error}", failure="DataInvalid") from None

    def of(self, tools: Tools) -> str:
        """The template for a conversation with these tools."""
        return self.tools if tools and self.tools else self.text

    def plain(self, messages: list[Message]) -> list[Message]:
        """The messages with "" for content that is None, as beside calls of tools: many templates write "None"."""
        return _plain(messages, parts=self.parts)


def read(path: Path) -> str:
    """The template in a file. Raises JobError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(
            f"data.template: {path.name!r} cannot be read as UTF-8 text: {error}", failure="DataInvalid"
        ) from None


def choose(
    tokenizer: PreTrainedTokenizerBase, *, given: str | None, family: str, model: Path | None = None
) -> Template | None:
    """The template of ``given`` (its text), else the tokenizer's own, else what lies beside ``model`` for a processor,
    else ours for the family; None where there is none of these, which only conversations need.

    Replies are found by its generation marks; without any, by those of a twin of ours that writes the same; else by
    its generation prompts. Raises JobError where it is broken.
    """
    found = _text(tokenizer, given=given, family=family, model=model)
    if found is None:
        return None
    text, with_tools, origin = found
    special: dict[str, str] = dict(tokenizer.special_tokens_map)
    for one in (text, with_tools):
        if one is not None:
            check(one, origin=origin)
    parts = _takes_parts_alone(text, special)
    _check_marks(text, special, origin=origin, parts=parts)
    twin = None if marked(text) or parts else _twin(text, special, family=family)
    return Template(
        text=text,
        tools=with_tools,
        origin=origin,
        way="marks" if marked(text) else "twin" if twin else "prompts",
        twin=twin,
        stops=_stops(tokenizer, family=family, model=model),
        special=special,
        parts=parts,
    )


def _plain(messages: list[Message], *, parts: bool) -> list[Message]:
    made = [message if message.get("content") is not None else message | {"content": ""} for message in messages]
    if not parts:
        return made
    return [message | {"content": [{"type": "text", "text": message["content"]}]} for message in made]


def _text(
    tokenizer: PreTrainedTokenizerBase, *, given: str | None, family: str, model: Path | None
) -> tuple[str, str | None, str] | None:
    if given is not None:
        return given, None, "data.template of the spec"
    own = tokenizer.chat_template
    if isinstance(own, dict) and own:
        if "default" not in own:
            raise JobError(
                f"the tokenizer has several chat templates, {', '.join(map(repr, own))}, and none is 'default': "
                f"set data.template to a file with one",
                failure="ModelInvalid",
            )
        return own["default"], own.get("tool_use") or None, "the tokenizer's own"
    if own:
        return own, None, "the tokenizer's own"
    if (beside := _processors(model)) is not None:
        return beside, None, "the processor's own"
    if (name := of_family(family, tokenizer.get_vocab())) is not None:
        return shipped()[name], None, f"ours for the family {family!r}, {name!r}, since the tokenizer has none"
    return None


def _processors(model: Path | None) -> str | None:
    """What processors of models that see keep beside them."""
    path = model / "chat_template.json" if model is not None else None
    if path is None or not path.is_file():
        return None
    try:
        text = json.loads(path.read_text(encoding="utf-8"))["chat_template"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise JobError(f"{path.name} of the model holds no chat template: {error}", failure="ModelInvalid") from None
    return str(text)


def _stops(tokenizer: PreTrainedTokenizerBase, *, family: str, model: Path | None) -> tuple[str, ...]:
    """Tokens that end a reply: the tokenizer's end, those that generation stops at, and those of the family."""
    ids = [tokenizer.eos_token_id]
    path = model / "generation_config.json" if model is not None else None
    if path is not None and path.is_file():
        try:
            also = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError) as error:
            raise JobError(f"{path.name} of the model cannot be read: {error}", failure="ModelInvalid") from None
        ids += also if isinstance(also, list) else [also]
    names = [tokenizer.convert_ids_to_tokens(one) for one in ids if isinstance(one, int)]
    language = families()[family].language if family in families() else None
    known = tokenizer.get_vocab()
    names += [stop for stop in (language.stops if language else ()) if stop in known]
    return tuple(dict.fromkeys(filter(None, names)))


def _twin(text: str, special: Mapping[str, str], *, family: str) -> str | None:
    """The template of ours that writes the same, if there is one; that of the family is tried first."""
    wanted = {number: said for number, probe in enumerate(PROBES) if (said := _said(text, probe, special)) is not None}
    if not wanted:
        return None
    first = FAMILIES.get(family)
    for name in sorted(shipped(), key=lambda name: name != first):
        if all(_said(shipped()[name], PROBES[number], special) == said for number, said in wanted.items()):
            return name
    return None


def _said(text: str, messages: list[Message], special: Mapping[str, str]) -> str | None:
    try:
        return render(text, messages, special=special).text
    except BrokenSampleError:
        return None


def _takes_parts_alone(text: str, special: Mapping[str, str]) -> bool:
    """Whether it writes a reply that is a list of parts, and not one that is a text."""
    as_text, as_parts = (_said(text, _plain(PROBES[0], parts=parts), special) or "" for parts in (False, True))
    return REPLY["content"] in as_parts and REPLY["content"] not in as_text


def _check_marks(text: str, special: Mapping[str, str], *, origin: str, parts: bool) -> None:
    """Raises JobError where marks enclose something else than a reply: inside a macro their places are not known."""
    try:
        made = render(text, _plain(PROBES[0], parts=parts), special=special)
    except BrokenSampleError:
        return  # it wants other messages: each sample shows
    learned = "".join(made.text[start:stop] for start, stop in made.spans)
    if marked(text) and REPLY["content"] not in learned:
        raise JobError(
            f"the generation marks of the chat template ({origin}) enclose {learned[:60]!r} where the reply is "
            f"{REPLY['content']!r}: put them around the reply, outside macros, or leave them out",
            failure="DataInvalid",
        )
