"""Our own kernels: packed documents, and decoding over pages."""

from __future__ import annotations

from torch import Tensor

from runner.kernels.attention.call import Backend, Call, Inputs, first, flat, needs_documents
from runner.kernels.ops.paged_attention import paged_attention
from runner.kernels.ops.varlen_attention import varlen_attention


def _varlen_refusal(call: Call) -> str | None:
    return first(
        None if call.triton else f"Triton kernels do not run on {call.device} in {call.dtype}",
        "holds heads of at most 256" if max(call.head_dim, call.value_dim) > 256 else None,
        "has no dropout" if call.dropout else None,
        "reads no pages" if call.pages else None,
        needs_documents(call),
    )


def _varlen(inputs: Inputs) -> Tensor:
    documents = inputs.documents
    query, key, value = (flat(x) for x in inputs.tensors)
    out = varlen_attention(
        query,
        key,
        value,
        documents.queries,
        max_seqlen=documents.longest_query,
        cu_seqlens_k=None if documents.keys is documents.queries else documents.keys,
        max_seqlen_k=documents.longest_key,
        causal=inputs.plan.pattern.causal,
        scale=inputs.scale,
        window=inputs.plan.pattern.window,
        softcap=inputs.softcap,
        sinks_H=inputs.sinks,
        with_triton=inputs.with_triton,
    )
    return out.view(inputs.query.shape[0], -1, *out.shape[1:])


def _paged_refusal(call: Call) -> str | None:
    return first(
        None if call.pages else "there are no pages",
        "decodes one query a row" if call.queries != 1 else None,
        "has no dropout" if call.dropout else None,
        "has no backward pass" if call.backward else None,
    )


def _paged(inputs: Inputs) -> Tensor:
    pages = inputs.pages
    assert pages is not None
    out_BHE = paged_attention(
        inputs.query[:, :, 0],
        pages.k_pages,
        pages.v_pages,
        pages.block_table,
        pages.lengths,
        scale=inputs.scale,
        window=inputs.plan.pattern.window,
        softcap=inputs.softcap,
        sinks_H=inputs.sinks,
        with_triton=inputs.with_triton,
    )
    return out_BHE.unsqueeze(1)


VARLEN = Backend(name="varlen", refusal=_varlen_refusal, run=_varlen)
PAGED = Backend(name="paged", refusal=_paged_refusal, run=_paged)
