"""What a model will see of its data, for people: the first samples as tokens, and which of them are learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from rich.console import Console
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from runner.llm.data.sample import Chat, Sample
from runner.llm.document import Document
from runner.llm.text.tokens import Encoder, Refusal

MOST = 2000  # tokens shown of one document: some 100 lines of a terminal
PIECES = 8  # tokens that may make one character: four bytes, and room for odd vocabularies
HALF = "\N{REPLACEMENT CHARACTER}"
LEARNED, SEEN = ("bold green", "green"), ("grey62", "grey42")  # neighbours differ, so that tokens can be told


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token, or the few that make one character."""

    ids: tuple[int, ...]
    text: str
    learned: bool


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A document, or why there is none."""

    place: str
    reason: str | None = None
    tokens: tuple[Token, ...] = ()  # the first ``MOST``
    count: int = 0  # tokens
    learned: int = 0  # tokens
    special: tuple[str, ...] = ()  # tokens in what people wrote, see ``Special``


@dataclass(frozen=True, kw_only=True)
class CorpusShown:
    """The first documents of a corpus."""

    field: str  # "data.train[0]"
    source: str
    format: str
    why: str  # what told the format
    documents: tuple[Shown, ...]


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What `runner explain data` shows; JSON types but for tuples."""

    name: str  # of the spec
    loss_on: str
    template: str | None  # where it comes from and how replies are found
    seq_len: int
    corpora: tuple[CorpusShown, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self)

    def lines(self, *, colour: bool) -> list[str]:
        """For a terminal, with ANSI colours, or plain: there tokens stand between bars and what is learned in [[ ]]."""
        how = "green is learned" if colour else "what is learned stands in [[ ]], a bar between two tokens"
        told = [f"{self.name}: loss on {self.loss_on}; {how}", self.template or "no chat template"]
        for corpus in self.corpora:
            told += ["", f"{corpus.field}: {corpus.source}: format {corpus.format} ({corpus.why})"]
            for document in corpus.documents:
                told += ["", *_document(document, self.seq_len, colour=colour)]
        return told


def shown(
    samples: Iterable[Sample], encoder: Encoder, tokenizer: PreTrainedTokenizerBase, *, most: int
) -> tuple[Shown, ...]:
    """The documents of the first ``most`` of ``samples``."""
    first = list(islice(samples, most))
    special = {one.place: tuple(encoder.special.within(one)) for one in first if isinstance(one, Chat)}
    return tuple(_shown(one, tokenizer, special) for one in encoder.encode(first))


def _shown(
    one: Document | Refusal, tokenizer: PreTrainedTokenizerBase, special: Mapping[str, tuple[str, ...]]
) -> Shown:
    if not isinstance(one, Document):
        return Shown(place=one[0], reason=one[1])
    return Shown(
        place=one.place,
        tokens=tuple(_tokens(one.ids[:MOST].tolist(), one.learned[:MOST].tolist(), tokenizer)),
        count=len(one.ids),
        learned=int(one.learned.sum()),
        special=special.get(one.place, ()),
    )


def _tokens(ids: Sequence[int], learned: Sequence[bool], tokenizer: PreTrainedTokenizerBase) -> list[Token]:
    made: list[Token] = []
    at = 0
    while at < len(ids):
        sizes = range(1, min(PIECES, len(ids) - at) + 1)
        whole = (size for size in sizes if HALF not in _text(ids[at : at + size], tokenizer))
        size = next(whole, 1)  # bytes of no character stand as a replacement each
        here = tuple(ids[at : at + size])
        made.append(Token(ids=here, text=_text(here, tokenizer), learned=learned[at]))
        at += size
    return made


def _text(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    text = str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
    first = tokenizer.convert_ids_to_tokens(ids[0])
    # tokenizers that mark a word's beginning drop the space of the first one that they decode
    return f" {text}" if isinstance(first, str) and first.startswith("▁") and not text.startswith(" ") else text


def _document(document: Shown, seq_len: int, *, colour: bool) -> list[str]:
    if document.reason is not None:
        return [f"{document.place}: not used: {document.reason}"]
    long = f", longer than batch.seq_len {seq_len:,}" if document.count > seq_len else ""
    head = f"{document.place}: {document.count:,} tokens, {document.learned:,} learned{long}"
    left = document.count - sum(len(token.ids) for token in document.tokens)
    tail = [f"... and {left:,} more tokens"] if left else []
    body = _coloured(document.tokens) if colour else _plain(document.tokens)
    names = ", ".join(map(repr, document.special))
    note = [f"special tokens in what people wrote count as real ones: {names}"] if names else []
    return [head, *note, *(body[:-1] if body[-1:] == [""] else body), *tail]


def _plain(tokens: Sequence[Token]) -> list[str]:
    text, before = "", None
    for token in tokens:
        if before is not None and token.learned == before.learned:
            text += "|"
        elif before is not None and before.learned:
            text += "]]"
        if token.learned and (before is None or not before.learned):
            text += "[["
        text, before = text + _visible(token.text), token
    return (text + ("]]" if before is not None and before.learned else "")).split("\n")


def _coloured(tokens: Sequence[Token]) -> list[str]:
    text = Text()
    for number, token in enumerate(tokens):
        text.append(_visible(token.text), style=(LEARNED if token.learned else SEEN)[number % 2])
    console = Console(force_terminal=True, color_system="256", highlight=False)
    with console.capture() as caught:
        console.print(text, end="", soft_wrap=True)
    return caught.get().split("\n")


def _visible(text: str) -> str:
    """Line breaks as a sign and a break; what would steer a terminal as its escape."""
    return "".join("⏎\n" if c == "\n" else c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
