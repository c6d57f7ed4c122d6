"""A small batch out of a run's own, for probes: what they hold against fp64 must be short, whatever a row's length."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from runner.llm.packing.step import IGNORED

PIECES = 4
TOKENS = 512  # of a piece: 2,048 in all, whose logits in fp64 take 2 GB for a vocabulary of 128,256
CONTEXT = 16  # tokens before the first label


def small(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """At most ``PIECES`` pieces of documents with something to learn, on ``device``; of the same form as ``batch``."""
    made = _packed(batch) if "cu_seq_lens_q" in batch else _padded(batch)
    return {key: one.to(device) if isinstance(one, Tensor) else one for key, one in made.items()}


def first(packed: Mapping[str, Any]) -> dict[str, Any]:
    """The first document of a packed row, by itself."""
    length = int(packed["cu_seq_lens_q"][1])
    edges = packed["cu_seq_lens_q"][:2]
    sizes = {"cu_seq_lens_q": edges, "cu_seq_lens_k": edges, "max_length_q": length, "max_length_k": length}
    cut = {name: packed[name][..., :length] for name in ("input_ids", "labels", "position_ids")}
    return {**packed, **cut, **sizes}


def _packed(batch: Mapping[str, Any]) -> dict[str, Any]:
    edges = batch["cu_seq_lens_q"].tolist()
    labels = batch["labels"][0]
    pieces = [
        (number, slice(start, min(start + TOKENS, end)))
        for begin, end in itertools.pairwise(edges)
        for number, start in enumerate(range(begin, end, TOKENS))
    ]
    learned = [(number, piece) for number, piece in pieces if _has_labels(labels[piece.start + 1 : piece.stop])]
    chosen = [piece for _, piece in sorted(learned, key=lambda one: one[0])][:PIECES]  # of many documents before more
    where = torch.cat([torch.arange(piece.start, piece.stop) for piece in chosen or [pieces[0][1]]])
    lengths = [piece.stop - piece.start for piece in chosen or [pieces[0][1]]]
    cuts = torch.tensor([0, *lengths]).cumsum(0).int()
    places = torch.cat([torch.arange(length) for length in lengths])
    axes = batch["position_ids"].shape[:-1]
    return {
        **batch,
        "input_ids": batch["input_ids"][:, where],
        "labels": batch["labels"][:, where].masked_fill(places == 0, IGNORED),
        "position_ids": places.expand(*axes, -1).contiguous(),
        "cu_seq_lens_q": cuts,
        "cu_seq_lens_k": cuts,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


def _padded(batch: Mapping[str, Any]) -> dict[str, Any]:
    rows = (batch["labels"] != IGNORED).any(1).nonzero()[:PIECES, 0]
    rows = rows if len(rows) else torch.tensor([0])
    first = (batch["labels"][rows] != IGNORED).long().argmax(1)  # of each row
    begin = max(0, int(first.min()) - CONTEXT)
    width = slice(begin, begin + TOKENS)
    labels = batch["labels"][rows, width].clone()
    labels[:, 0] = IGNORED
    return {
        **batch,
        "input_ids": batch["input_ids"][rows, width],
        "attention_mask": batch["attention_mask"][rows, width],
        "labels": labels,
    }


def _has_labels(labels: Tensor) -> bool:
    return bool((labels != IGNORED).any())
