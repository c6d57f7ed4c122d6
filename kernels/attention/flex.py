"""FlexAttention with a block mask: of documents where they say it all, of the dense mask where they do not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

from runner.kernels.attention.call import Backend, Call, Inputs, first
from runner.kernels.attention.plan import Documents, Plan, places


def _refusal(call: Call) -> str | None:
    return first(
        "has no backward pass on CPUs" if call.backward and call.device != "cuda" else None,
        "has no dropout" if call.dropout else None,
        "reads no pages" if call.pages else None,
    )


def _run(inputs: Inputs) -> Tensor:
    plan, softcap = inputs.plan, inputs.softcap

    def capped(score: Tensor, _b: Tensor, _h: Tensor, _q: Tensor, _k: Tensor) -> Tensor:
        assert softcap is not None
        return torch.tanh(score / softcap) * softcap

    if plan.blocks is None:
        plan.blocks = _block_mask(plan)
    # uncompiled it holds whole score matrices: on a CPU it is there to be asked for, never chosen
    attend: Any = _compiled() if inputs.query.is_cuda else flex_attention
    out_BHQE, aux = attend(
        *inputs.tensors,
        score_mod=None if softcap is None else capped,
        block_mask=plan.blocks,
        scale=inputs.scale,
        enable_gqa=inputs.query.shape[1] != inputs.key.shape[1],
        return_aux=AuxRequest(lse=inputs.sinks is not None),
    )
    if inputs.sinks is not None:  # e^lse / (e^lse + e^sink) of the weights is left to the keys
        left_BHQ1 = torch.sigmoid(aux.lse - inputs.sinks.to(aux.lse.dtype)[:, None])[..., None]
        out_BHQE = (out_BHQE * left_BHQ1).to(inputs.query.dtype)
    out: Tensor = out_BHQE.transpose(1, 2)
    return out


def _block_mask(plan: Plan) -> BlockMask:
    """Blocks of 128 by 128 that are empty, full, or looked at one by one."""
    batch, _, queries, keys = plan.shape
    if isinstance(plan.layout, Documents):
        seen = places(plan)
    else:
        dense = plan.dense.expand(batch, 1, queries, keys)

        def seen(b: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return dense[b, 0, q, k]

    # compiled it never holds the mask of all pairs
    on_gpu = plan.device.type == "cuda"
    return create_block_mask(seen, batch, None, queries, keys, device=str(plan.device), _compile=on_gpu)


@cache
def _compiled() -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(flex_attention)
    return compiled


FLEX = Backend(name="flex", refusal=_refusal, run=_run)
