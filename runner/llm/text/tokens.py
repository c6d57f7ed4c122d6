"""Samples as documents: tokens, and which of them are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from runner.llm.data.sample import BrokenSampleError, Chat, Completion, Sample
from runner.llm.document import Document
from runner.llm.text.heard import Heard
from runner.llm.text.render import Rendered, Span
from runner.llm.text.special import Special
from runner.llm.text.template import Template
from runner.schema.errors import JobError

Refusal = tuple[str, str]  # place, reason
Ids = NDArray[np.int32]
Learned = NDArray[np.bool_]
SHOWN = 300  # characters of a sample in a reason: enough to see whose it is


@dataclass(frozen=True, kw_only=True, slots=True)
class _Piece:
    """A text on its way to a document."""

    place: str
    text: str
    spans: tuple[Span, ...] | None  # what is learned, as characters; None is all of it
    plain: bool  # no template wrote it: the tokenizer adds what begins and ends a text


class Encoder:
    """Makes documents. ``loss_on``: `responses` learns what the assistant writes and completions, `all` every token.

    A conversation goes through ``template``; without one it is refused. A completion follows its prompt in one text,
    so that tokens are as the model would meet them, and ends with the tokenizer's end, which is learned. Plain text
    ends so as well. Both begin as the tokenizer begins texts, once.

    Raises JobError for a tokenizer that cannot tell where its tokens come from (none of the `tokenizers` library).
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: Template | None, *, loss_on: Literal["responses", "all"]
    ) -> None:
        if not tokenizer.is_fast:
            raise JobError(
                f"{type(tokenizer).__name__} cannot tell which characters a token comes from, which training needs: "
                f"save a tokenizer.json beside the model",
                failure="ModelInvalid",
            )
        self._tokenizer = tokenizer
        self._template = template
        self._responses = loss_on == "responses"
        self._heard = Heard()
        self.special = Special(tokenizer)  # of the conversations up to now
        self.split = 0  # conversations that made several documents

    def encode(self, samples: Sequence[Sample]) -> list[Document | Refusal]:
        """Documents, or a place and a reason, in the order of ``samples``.

        Tokenises all of them at once, on the threads of the `tokenizers` library. A conversation may make several
        documents, see ``spans.found``: they follow each other and share its place.
        """
        made: list[_Piece | Refusal] = []
        for sample in samples:
            try:
                made += map(_checked, self._pieces(sample))
            except BrokenSampleError as error:
                made.append((sample.place, str(error)))
        documents = iter(self._documents([one for one in made if isinstance(one, _Piece)]))
        return [next(documents) if isinstance(one, _Piece) else one for one in made]

    def end(self) -> int | None:
        """The token that ends a reply, for generation to stop at: a model may have been made for another one. None
        where replies end in plain text."""
        if self._template is None:
            end: int | None = self._tokenizer.eos_token_id
            return end
        ids: list[int] = self._tokenizer(self._template.reply, add_special_tokens=False)["input_ids"]
        return ids[-1] if ids and ids[-1] in self._tokenizer.added_tokens_decoder else None

    def ask(self, prompt: str) -> list[int]:
        """The tokens after which a model answers ``prompt``: a user's question where there is a template, plain text
        otherwise. Raises JobError where the template refuses it, or where no token is left."""
        if self._template is not None:
            ids: list[int] = self._tokenizer(self._template.ask(prompt), add_special_tokens=False)["input_ids"]
        else:
            ids = self._tokenizer(prompt)["input_ids"]
            ids = ids[:-1] if ids[-1:] == [self._tokenizer.eos_token_id] else ids
        if not ids:
            raise JobError(f"evaluation.prompts: {prompt!r} is no token to this model", failure="DataInvalid")
        return ids

    def _pieces(self, sample: Sample) -> list[_Piece]:
        if isinstance(sample, Chat):
            written = self._written(sample)
            self.split += len(written) > 1
            return [
                _Piece(place=sample.place, text=one.text, spans=one.spans if self._responses else None, plain=False)
                for one in written
            ]
        if isinstance(sample, Completion):
            if not sample.completion.strip():
                raise BrokenSampleError("empty text: the completion says nothing")
            text = sample.prompt + sample.completion
            spans = ((len(sample.prompt), len(text)),) if self._responses else None
            return [_Piece(place=sample.place, text=text, spans=spans, plain=True)]
        if self._responses:
            raise BrokenSampleError(
                f"nothing to learn: plain text has no responses; set data.loss_on to all, or method to pretrain. "
                f"It begins {sample.text[:SHOWN]!r}"
            )
        return [_Piece(place=sample.place, text=sample.text, spans=None, plain=True)]

    def _written(self, sample: Chat) -> list[Rendered]:
        if self._template is None:
            raise BrokenSampleError("no chat template: a conversation needs one; set data.template to a file with one")
        self._heard.check(self._template, sample.messages, sample.tools)
        written = self._template.write(sample.messages, sample.tools, replies=self._responses)
        self.special.note(sample)
        return written

    def _documents(self, pieces: list[_Piece]) -> list[Document | Refusal]:
        made: dict[int, Document | Refusal] = {}
        for plain in (False, True):
            numbers = [number for number, piece in enumerate(pieces) if piece.plain is plain]
            ids, offsets = self._tokens([pieces[n].text for n in numbers], plain)
            for number, one, places in zip(numbers, ids, offsets, strict=True):
                made[number] = self._document(pieces[number], one, places)
        return [made[number] for number in range(len(pieces))]

    def _tokens(self, texts: list[str], plain: bool) -> tuple[list[list[int]], list[list[Span]]]:
        if not texts:
            return [], []
        found: Any = self._tokenizer(
            texts,
            add_special_tokens=plain,
            return_offsets_mapping=self._responses,  # they take a fifth of the time
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return found["input_ids"], found["offset_mapping"] if self._responses else [[]] * len(texts)

    def _document(self, piece: _Piece, numbers: list[int], offsets: list[Span]) -> Document | Refusal:
        learned = np.ones(len(numbers), np.bool_) if piece.spans is None else _learned(offsets, piece.spans)
        ids = np.asarray(numbers, np.int32)
        if piece.plain:
            ids, learned = self._bounded(ids, learned)
        learned[:1] = False  # nothing predicts the first
        if not learned.any():
            what = "no token of it is the assistant's" if piece.spans is not None else "it is too short"
            return piece.place, f"nothing to learn: {what}. It is {piece.text[:SHOWN]!r}"
        return Document(place=piece.place, ids=ids, learned=learned)

    def _bounded(self, ids: Ids, learned: Learned) -> tuple[Ids, Learned]:
        """One beginning, where the text had one too; and one end, learned, where the tokenizer has such a token."""
        begin, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        if begin is not None and begin != end and len(ids) > 1 and ids[0] == ids[1] == begin:
            ids, learned = ids[1:], learned[1:]
        if end is None:
            return ids, learned
        if not len(ids) or ids[-1] != end:
            ids, learned = np.append(ids, np.int32(end)), np.append(learned, True)
        learned[-1] = True
        return ids, learned


def _checked(piece: _Piece) -> _Piece:
    try:
        piece.text.encode()  # JSON can hold half a character: "\\ud83d"; tokenizers take none
    except UnicodeEncodeError as error:
        reason = f"not text: {piece.text[error.start : error.end]!a} at character {error.start + 1} is half a character"
        raise BrokenSampleError(reason) from None
    return piece


def _learned(offsets: list[Span], spans: tuple[Span, ...]) -> Learned:
    """Which tokens overlap a span. Shapes: T tokens; the result is [T]."""
    places = np.asarray(offsets, np.int64).reshape(-1, 2)
    stop = places[:, 1]
    start = np.minimum(places[:, 0], stop - 1)  # byte-level tokenizers trim white space off offsets, to nothing
    learned = np.zeros(len(offsets), np.bool_)
    for begin, end in spans:
        learned |= (stop > begin) & (start < end)
    return learned
