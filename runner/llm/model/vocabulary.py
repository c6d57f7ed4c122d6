"""New entries of the vocabulary: the tokenizer learns them, embeddings and head get a row for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What became of the vocabulary."""

    added: tuple[str, ...]  # tokens that the tokenizer did not have
    rows: tuple[int, int]  # of the embeddings, before and after

    @property
    def resized(self) -> bool:
        """Whether rows were added."""
        return self.rows[0] != self.rows[1]


def grow(model: Any, tokenizer: Any, *, add: Sequence[str], multiple: int) -> Growth:
    """Add special tokens to ``tokenizer``, and rows to ``model`` up to a multiple of ``multiple``; never takes any.

    Rows of new tokens and of padding are the mean of all that stood for a token before, in embeddings and head alike
    (Hewitt 2021: the others' probabilities then change little). Weights that were tied stay so.
    """
    known = len(tokenizer)
    vocabulary = tokenizer.get_vocab()
    added = tuple(dict.fromkeys(token for token in add if token not in vocabulary))
    if add:
        tokenizer.add_special_tokens({"additional_special_tokens": list(add)}, replace_extra_special_tokens=False)
    before = model.get_input_embeddings().weight.shape[0]
    wanted = -(-max(before, len(tokenizer)) // multiple) * multiple
    if wanted != before:
        model.resize_token_embeddings(wanted, mean_resizing=False)
    if added or wanted != before:
        for weight in _matrices(model):
            _fill(
                weight, known=min(known, before), fresh=sorted({*range(known, len(tokenizer)), *range(before, wanted)})
            )
    return Growth(added=added, rows=(before, wanted))


def tied(model: Any) -> bool:
    """Whether embeddings and head are one matrix."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _matrices(model: Any) -> list[nn.Parameter]:
    """Weights of embeddings and head, once where they are tied."""
    parts = [model.get_input_embeddings(), model.get_output_embeddings()]
    return list({id(part.weight): part.weight for part in parts if part is not None}.values())


@torch.no_grad()
def _fill(weight: Tensor, *, known: int, fresh: Sequence[int]) -> None:
    weight[list(fresh)] = weight[:known].double().mean(0).to(weight.dtype)
