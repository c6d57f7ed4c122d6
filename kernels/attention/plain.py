"""Attention in plain torch: whole score matrices, every option."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from runner.kernels.attention.call import Backend, Call, Inputs, needs_documents, repeated
from runner.kernels.attention.plan import Plan

# (query, key, value, mask or None) of one document or of all rows, [B, H, Q, D] -> [B, H, Q, E]
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, bool], Tensor]


def _refusal(call: Call) -> str | None:
    return "reads no pages" if call.pages else None


def _plain(inputs: Inputs) -> Tensor:
    return whole(inputs, _attend(inputs))


def _by_documents(inputs: Inputs) -> Tensor:
    return one_by_one(inputs, _attend(inputs))


def _attend(inputs: Inputs) -> Attend:
    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, leans: bool) -> Tensor:
        heads = query.shape[1]
        scores = query @ repeated(key, heads).transpose(2, 3) * inputs.scale
        if inputs.softcap is not None:
            scores = torch.tanh(scores / inputs.softcap) * inputs.softcap
        if mask is None and leans:
            mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
        if mask is not None:
            # finite, as transformers has it: a row that sees nothing becomes a mean and no NaN
            lowest = torch.finfo(scores.dtype).min
            scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
        if inputs.sinks is not None:  # one more column that is weighed and adds nothing
            sinks = inputs.sinks.to(scores.dtype)[:, None, None].expand(*scores.shape[:3], 1)
            scores = torch.cat([scores, sinks], -1)
        weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)[..., : key.shape[2]]
        weights = functional.dropout(weights, inputs.dropout)
        return weights @ repeated(value, heads)

    return attend


def whole(inputs: Inputs, attend: Attend) -> Tensor:
    """All rows at once, under a dense mask unless none is needed."""
    mask = None if inputs.plan.free else inputs.plan.dense
    return attend(*inputs.tensors, mask, inputs.plan.leans).transpose(1, 2)


def one_by_one(inputs: Inputs, attend: Attend) -> Tensor:
    """Document after document; a mask, of one document, is held only where a window is shorter than it."""
    queries, keys = inputs.documents.lengths
    cut = (x.flatten(0, 1)[None].transpose(1, 2) for x in (y.transpose(1, 2) for y in inputs.tensors))
    query, key, value = cut
    parts = zip(query.split(queries, 2), key.split(keys, 2), value.split(keys, 2), strict=True)
    causal = inputs.plan.pattern.causal
    out = []
    for one_query, one_key, one_value in parts:
        mask = _local(inputs.plan, one_query.shape[2], one_key.shape[2])
        out.append(attend(one_query, one_key, one_value, mask, causal and one_query.shape[2] > 1))
    return torch.cat(out, 2).transpose(1, 2).reshape(len(inputs.query), -1, *out[0].shape[1::2])


def _local(plan: Plan, queries: int, keys: int) -> Tensor | None:
    """The mask of one document, or None where `is_causal` says it all; made once a step."""
    causal, window = plan.pattern.causal, plan.pattern.window
    if (window is None or keys <= window) and (queries in {1, keys} or not causal):
        return None
    if (queries, keys) not in plan.local:
        places = torch.arange(keys, device=plan.device)
        ahead = places - places[keys - queries :, None]
        seen = ahead <= 0 if causal else torch.ones_like(ahead, dtype=torch.bool)
        plan.local[queries, keys] = seen if window is None else seen & (ahead.abs() < window)
    return plan.local[queries, keys]


PLAIN = Backend(name="plain", refusal=_refusal, run=_plain)
PLAIN_DOCUMENTS = Backend(
    name="plain_documents", refusal=lambda call: _refusal(call) or needs_documents(call), run=_by_documents
)
