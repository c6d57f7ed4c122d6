"""A step: what one process computes between two updates of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

Batch = dict[str, Any]  # what the model is called with; see ``Step``
IGNORED = -100  # the label of what is not learned


@dataclass(frozen=True, kw_only=True)
class Step:
    """The share of one process; the counts are of all processes together, known without asking them.

    A packed batch is one row of T tokens: `input_ids`, `labels` [1, T], `position_ids` [1, T] (from 0 in each document;
    [4, 1, T] for multimodal rotary positions, see ``form``), `cu_seq_lens_q`, `cu_seq_lens_k` int32 [documents + 1],
    `max_length_q`, `max_length_k` int, and no mask. A padded one has `input_ids`, `attention_mask`, `labels` [R, T].
    Labels are ``IGNORED`` where nothing is learned: always at a document's first token. `use_cache` is False.
    """

    number: int  # from 0
    batches: tuple[Batch, ...]  # forward passes, at least one; equally many in each process
    targets: int  # labels that count: what the sum of all losses is divided by
    tokens: int  # without padding
    computed: int  # with padding
    documents: int  # or pieces of them


class Steps(Protocol):
    """All steps of a run in order: the same seed gives the same steps, whatever came before."""

    total: int  # steps of the run

    def begin(self, number: int) -> Iterator[Step]:
        """From step ``number`` to the last."""
        ...
