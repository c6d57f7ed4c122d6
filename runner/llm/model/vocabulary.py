"""New entries of the vocabulary: the tokenizer learns them, embeddings and head get a row for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from runner.llm.model.load import quiet
from runner.schema.errors import JobError


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What became of the vocabulary."""

    added: tuple[str, ...]  # tokens that the tokenizer did not have
    rows: tuple[int, int]  # of the embeddings, before and after

    @property
    def resized(self) -> bool:
        """Whether rows were added."""
        return self.rows[0] != self.rows[1]


def open(folder: Path, *, add: Sequence[str] = (), trust_remote_code: bool = False) -> tuple[Any, tuple[str, ...]]:  # noqa: A001
    """The tokenizer of the model in ``folder`` with special tokens ``add``, and those of them that are new to it.

    Raises JobError where there is none or it cannot be read.
    """
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
    except Exception as error:  # the tokenizers library raises plain Exception for broken files
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise JobError(
            f"the model's tokenizer cannot be read: {said}; save it beside the weights again", failure="ModelInvalid"
        ) from error
    return tokenizer, extend(tokenizer, add)


def extend(tokenizer: Any, tokens: Sequence[str]) -> tuple[str, ...]:
    """Make special tokens of ``tokens``; those of them that are new."""
    known = tokenizer.get_vocab()
    if tokens:  # also those that are there: from now on they are never split
        tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)}, replace_extra_special_tokens=False)
    return tuple(dict.fromkeys(token for token in tokens if token not in known))


def grow(model: Any, tokenizer: Any, *, added: Sequence[str], multiple: int) -> Growth:
    """Add rows to ``model`` for all of ``tokenizer`` up to a multiple of ``multiple``; never take any away.

    Rows of tokens that were ``added`` and of padding are the mean of all that stood for a token before, in embeddings
    and head alike (Hewitt 2021: the others' probabilities then change little). Weights that were tied stay so.
    """
    new = tokenizer.convert_tokens_to_ids(list(added)) if added else []
    before = model.get_input_embeddings().weight.shape[0]
    wanted = -(-max(before, len(tokenizer)) // multiple) * multiple
    if wanted != before:
        model.resize_token_embeddings(wanted, mean_resizing=False)
    fresh = sorted({*new, *range(before, wanted)})
    if fresh:
        known = sorted(set(range(min(before, len(tokenizer)))) - set(fresh))
        for weight in _matrices(model):
            _fill(weight, known=known, fresh=fresh)
    return Growth(added=tuple(added), rows=(before, wanted))


def tied(model: Any) -> bool:
    """Whether embeddings and head are one matrix."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _matrices(model: Any) -> list[nn.Parameter]:
    """Weights of embeddings and head, once where they are tied."""
    parts = [model.get_input_embeddings(), model.get_output_embeddings()]
    return list({id(part.weight): part.weight for part in parts if part is not None}.values())


@torch.no_grad()
def _fill(weight: Tensor, *, known: Sequence[int], fresh: Sequence[int]) -> None:
    weight[list(fresh)] = weight[list(known)].double().mean(0).to(weight.dtype)
