"""Which keys each query sees: built once a forward pass and kind of mask, it takes the mask's place in every layer.

transformers calls a registered mask function once for full and once for sliding layers, and hands what it returns to
every layer. A `Plan` says what that mask is made of, cuts the rows into documents for kernels that need no mask, and
holds the dense mask only once a backend asks for it. Shapes: B rows, Q queries and K keys a row, T tokens of all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.masking_utils import causal_mask_function, prepare_padding_mask, sdpa_mask

from runner.kernels.attention.pattern import Pattern, read


@dataclass(frozen=True, kw_only=True, eq=False)
class Documents:
    """The rows laid end to end and cut: the queries of a document see its keys and no others."""

    count: int
    longest_query: int
    longest_key: int
    edges: Callable[[], tuple[Tensor, Tensor]]
    rows: bool = False  # each row is one document
    known: tuple[list[int], list[int]] | None = None  # `lengths`, where they are at hand

    @cached_property
    def _edges(self) -> tuple[Tensor, Tensor]:
        return self.edges()

    @property
    def queries(self) -> Tensor:
        """Where the queries of each begin, and the end: int32 [documents + 1], on the device."""
        return self._edges[0]

    @property
    def keys(self) -> Tensor:
        """The same of their keys."""
        return self._edges[1]

    @cached_property
    def lengths(self) -> tuple[list[int], list[int]]:
        """Queries and keys of each document; may wait for a GPU, once."""
        return self.known or (self.queries.diff().tolist(), self.keys.diff().tolist())


def rows_of(batch: int, queries: int, keys: int, device: torch.device) -> Documents:
    """Each row a document of its own."""

    def edges() -> tuple[Tensor, Tensor]:
        at = torch.arange(batch + 1, dtype=torch.int32, device=device)
        own = at * queries
        return own, own if keys == queries else at * keys

    return Documents(count=batch, longest_query=queries, longest_key=keys, edges=edges, rows=True)


class Tokens:
    """Documents of rows by the ids of their tokens, or by their padding. Read from the device once."""

    def __init__(self, *, ids: Tensor | None = None, padding: Tensor | None = None) -> None:
        self._ids = ids
        self._padding = padding

    @cached_property
    def documents(self) -> Documents | str:
        """A run of equal ids is a document; padding is one too, which nothing looks at. Or why it cannot be cut."""
        given = self._padding if self._ids is None else self._ids
        assert given is not None
        ids = given.cpu().numpy()  # the one wait for the device in a step; numpy is 10 times as fast on small arrays
        starts = np.ones(ids.shape, dtype=bool)
        starts[:, 1:] = ids[:, 1:] != ids[:, :-1]
        if self._ids is None and (starts & ids).sum(1).max(initial=0) > 1:
            return "padding amid the tokens of a row"
        batch, length = ids.shape
        at = np.flatnonzero(starts)
        if len(at) == batch and (self._ids is not None or ids.all()):
            return rows_of(batch, length, length, given.device)
        lengths = np.diff(at, append=ids.size).tolist()

        def edges() -> tuple[Tensor, Tensor]:
            own = torch.tensor([*at.tolist(), ids.size], dtype=torch.int32, device=given.device)
            return own, own

        longest = max(lengths)
        return Documents(
            count=len(lengths), longest_query=longest, longest_key=longest, edges=edges, known=(lengths, lengths)
        )


class Plan:
    """Stands where layers expect a mask. Has the rank and shape of one, so that transformers leaves it as it is."""

    ndim = 4

    def __init__(
        self,
        pattern: Pattern,
        *,
        batch: int,
        queries: int,
        keys: int,
        device: torch.device,
        layout: Callable[[], Documents | str],
        dense: Callable[[], Tensor],
    ) -> None:
        self.pattern = pattern
        self.shape = (batch, 1, queries, keys)
        self.device = device
        self._layout = layout
        self._dense = dense
        self._cut: tuple[Tensor, Plan] | None = None
        self.chosen: dict[Any, Any] = {}  # backends, by what tells the layers of a step apart
        self.local: dict[tuple[int, int], Tensor] = {}  # masks of one document, by its queries and keys
        self.blocks: Any = None  # the BlockMask of FlexAttention, once it is built

    @cached_property
    def layout(self) -> Documents | str:
        """The documents, or why the mask cannot be had from documents, `causal` and `window` alone."""
        return self._layout()

    @cached_property
    def dense(self) -> Tensor:
        """True where a query sees a key: [B, 1, Q, K], or what the caller gave, which may be added to scores."""
        return self._dense()

    @cached_property
    def free(self) -> bool:
        """No mask has to be held: whole rows, causal over all of their keys or both ways."""
        if not isinstance(self.layout, Documents) or not self.layout.rows:
            return False
        _, _, queries, keys = self.shape
        square = queries in {1, keys} or not self.pattern.causal
        return square and (self.pattern.window is None or keys <= self.pattern.window)

    def contiguous(self) -> Plan:
        """Itself: generation with a static cache asks this of the masks that it makes before it calls the model."""
        return self

    @property
    def leans(self) -> bool:
        """`is_causal` for the kernels of torch, which need no mask where `free` is true."""
        return self.pattern.causal and self.shape[2] > 1

    def cut(self, queries: Tensor, keys: Tensor, *, longest_query: int, longest_key: int) -> Plan:
        """This plan over documents that a data collator names; the same for every layer of a step."""
        if self._cut is None or self._cut[0] is not queries:
            own = queries.to(torch.int32)
            edges = own, own if keys is queries else keys.to(torch.int32)
            documents = Documents(
                count=len(queries) - 1,
                longest_query=longest_query,
                longest_key=longest_key,
                edges=lambda: edges,
            )
            self._cut = (queries, _of_documents(documents, self.pattern, shape=self.shape, device=self.device))
        return self._cut[1]


def unmasked(*, batch: int, queries: int, keys: int, causal: bool, window: int | None, device: torch.device) -> Plan:
    """The plan of a layer that is given no mask at all."""
    documents = rows_of(batch, queries, keys, device)
    pattern = Pattern(causal=causal and queries > 1, window=window)
    return _of_documents(documents, pattern, shape=(batch, 1, queries, keys), device=device)


def given(mask: Tensor, *, batch: int, queries: int, keys: int) -> Plan:
    """The plan of a mask that the caller made: it is taken as it is."""
    return Plan(
        Pattern(other="the caller's own"),
        batch=batch,
        queries=queries,
        keys=keys,
        device=mask.device,
        layout=lambda: "a mask of the caller's own",
        dense=lambda: mask,
    )


def of_mask_function(
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    tokens: Callable[[Tensor | None, Tensor | None], Tokens] | None = None,
    **rest: Any,
) -> Plan:
    """The plan of what transformers asks a mask function for; `tokens` lets kinds of masks share what they read."""
    pattern = read(mask_function)
    device = torch.device(rest.get("device", "cpu"))
    padding = prepare_padding_mask(attention_mask, kv_length, kv_offset)
    if padding is not None:
        padding = padding[:, kv_offset : kv_offset + kv_length]
    aligned = isinstance(q_offset, int) and q_offset + q_length == kv_offset + kv_length
    config = rest["config"]
    # whose keys are padded, where a layer may look at another model's, transformers does not say
    crossed = getattr(config, "add_cross_attention", False) or config.is_encoder_decoder
    shared = tokens if tokens is not None and not crossed else _own_tokens
    read_tokens = shared(pattern.ids, padding)
    arguments: Mapping[str, Any] = {
        **rest,
        "batch_size": batch_size,
        "q_length": q_length,
        "kv_length": kv_length,
        "q_offset": q_offset if isinstance(q_offset, int) else q_offset.clone(),  # the cache counts on in place
        "kv_offset": kv_offset,
        "mask_function": mask_function,
        "attention_mask": attention_mask,
        "allow_is_causal_skip": False,
        "allow_is_bidirectional_skip": False,
    }

    def layout() -> Documents | str:
        why = _why_dense(pattern, padded=padding is not None, aligned=aligned, crossed=crossed)
        if why is not None:
            return why
        whole = rows_of(batch_size, q_length, kv_length, device)
        found = whole if pattern.ids is None and padding is None else read_tokens.documents
        if q_length == kv_length or isinstance(found, str):
            return found
        return whole if found.rows else "padding before other keys"

    return Plan(
        pattern,
        batch=batch_size,
        queries=q_length,
        keys=kv_length,
        device=device,
        layout=layout,
        dense=lambda: sdpa_mask(**arguments),
    )


def _why_dense(pattern: Pattern, *, padded: bool, aligned: bool, crossed: bool) -> str | None:
    """What of a mask documents, `causal` and `window` cannot say."""
    reasons = {
        f"a mask with {pattern.other}": pattern.other is not None,
        "keys that no query has reached (a static cache)": not aligned and bool(pattern.causal or pattern.window),
        "packed rows with padding": pattern.ids is not None and padded,
        "padding that may be of another's keys": padded and not pattern.causal and crossed,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _own_tokens(ids: Tensor | None, padding: Tensor | None) -> Tokens:
    return Tokens(ids=ids, padding=padding)


def _of_documents(
    documents: Documents, pattern: Pattern, *, shape: tuple[int, int, int, int], device: torch.device
) -> Plan:
    batch, _, queries, keys = shape

    def dense() -> Tensor:
        row, query, key = (torch.arange(size, device=device) for size in (batch, queries, keys))
        return places(plan)(row[:, None, None, None], query[:, None], query[:, None], key)

    plan = Plan(
        Pattern(causal=pattern.causal, window=pattern.window),
        batch=batch,
        queries=queries,
        keys=keys,
        device=device,
        layout=lambda: documents,
        dense=dense,
    )
    return plan


def places(plan: Plan) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Whether query q of row b sees its key k, as a function (b, head, q, k) of a plan that is cut into documents."""
    documents, pattern = plan.layout, plan.pattern
    assert isinstance(documents, Documents)
    batch, _, queries, keys = plan.shape
    number_q, at_q = (x.view(batch, queries) for x in _places(documents.queries, batch * queries))
    number_k, at_k = (x.view(batch, keys) for x in _places(documents.keys, batch * keys))

    def seen(b: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        together = number_q[b, q] == number_k[b, k]
        ahead = at_k[b, k] - at_q[b, q]
        if pattern.causal:
            together = together & (ahead <= 0)
        return together if pattern.window is None else together & (ahead.abs() < pattern.window)

    return seen


def _places(edges: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """The number of each token's document, and its place from the document's end: the last query meets the last key."""
    at = torch.arange(tokens, device=edges.device, dtype=edges.dtype)
    number = torch.searchsorted(edges[1:], at, right=True)
    return number, at - edges[1:][number.clamp(max=len(edges) - 2)]
