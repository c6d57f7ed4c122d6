"""Batches from tokens as a corpus holds them: the id, or ~id where it is not learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from runner.llm.packing.step import IGNORED, Batch

MULTIPLE = 8  # padded rows are of multiples of this, which tensor cores want
Coded = NDArray[np.int32]


def packed(documents: Sequence[Coded], *, position_axes: int = 1) -> Batch:
    """Documents one after the other in one row that does not see across them; see ``Step``.

    `position_ids` are [1, T], or [axes, 1, T] for a model that counts along several (`form.position_axes`).

    There is no mask: with one, transformers takes no notice of positions that restart, and mixes the documents.
    """
    coded = np.concatenate(documents).astype(np.int64)
    edges = np.zeros(len(documents) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in documents], out=edges[1:])
    lengths = np.diff(edges)
    labels = np.where(coded < 0, IGNORED, coded)
    labels[edges[:-1]] = IGNORED
    places = np.arange(len(coded)) - np.repeat(edges[:-1], lengths)
    positions = torch.from_numpy(places)[None]
    cuts = torch.from_numpy(edges.astype(np.int32))
    return {
        "input_ids": torch.from_numpy(np.where(coded < 0, ~coded, coded))[None],
        "labels": torch.from_numpy(labels)[None],
        "position_ids": positions if position_axes == 1 else positions.repeat(position_axes, 1, 1),
        "cu_seq_lens_q": cuts,
        "cu_seq_lens_k": cuts,
        "max_length_q": int(lengths.max()),
        "max_length_k": int(lengths.max()),
        "use_cache": False,  # with a cache, transformers does not look for documents in a row either
    }


def padded(documents: Sequence[Coded], *, pad_id: int) -> Batch:
    """Each document a row, padded at its end to the longest; see ``Step``."""
    width = width_of([len(one) for one in documents])
    coded = np.full((len(documents), width), ~pad_id, dtype=np.int64)
    mask = np.zeros((len(documents), width), dtype=np.int64)
    for row, one in enumerate(documents):
        coded[row, : len(one)] = one
        mask[row, : len(one)] = 1
    labels = np.where(coded < 0, IGNORED, coded)
    labels[:, 0] = IGNORED
    return {
        "input_ids": torch.from_numpy(np.where(coded < 0, ~coded, coded)),
        "attention_mask": torch.from_numpy(mask),
        "labels": torch.from_numpy(labels),
        "use_cache": False,
    }


def width_of(lengths: Sequence[int]) -> int:
    """Tokens of a padded row."""
    return -(-max(lengths) // MULTIPLE) * MULTIPLE


def blank(*, pad_id: int) -> Coded:
    """A document of which nothing is learned, for a process that has nothing to do but wait for the others."""
    return np.full(MULTIPLE, ~pad_id, dtype=np.int32)
