"""Forward of attention over packed documents: one program for a block of queries of a document and a head.

Online softmax, Dao 2023 (arXiv 2307.08691): with m the highest score so far, l the sum of exp(s - m) and o the sum of
exp(s - m) v, a block of keys that raises m to m' first multiplies l and o by exp(m - m'). At the end o / l, and
L = m + log l is kept for backward.
Shapes: T tokens, H heads of queries, G of keys, D and E features of keys and values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from runner.kernels.launch import jit, launch, tl
from runner.kernels.parts.scores import bent, document_of, product, rows_of, seen, span, store_rows, varying
from runner.kernels.parts.varlen import Settings


@jit
def _attend(
    total,
    highest,
    out,
    q,
    k_ptr,
    v_ptr,
    k_stride,
    v_stride,
    positions,
    start,
    stop,
    length,
    scale,
    factor,
    softcap,
    back,
    ahead,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BACK: tl.constexpr,
    AHEAD: tl.constexpr,
    CAPPED: tl.constexpr,
    UPCAST: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """The blocks of keys from `start` to `stop`; `WHOLE` where every query sees all of them."""
    rows = tl.arange(0, BLOCK_K)
    for first in range(start, stop, BLOCK_K):
        at = tl.cast(first, tl.int64)
        k = rows_of(k_ptr + at * k_stride, rows, k_stride, length - first, D, BLOCK_D, WHOLE)
        s, _ = bent(product(q, tl.trans(k), UPCAST), scale, softcap, CAPPED)
        if not WHOLE:
            keys = first + rows
            visible = seen(positions[:, None], keys[None, :], back, ahead, BACK, AHEAD) & (keys < length)[None, :]
            s = tl.where(visible, s, -float("inf"))
        higher = tl.maximum(highest, tl.max(s, 1) * factor)
        p = tl.exp2(s * factor - higher[:, None])
        shrink = tl.exp2(highest - higher)
        total = total * shrink + tl.sum(p, 1)
        highest = higher
        v = rows_of(v_ptr + at * v_stride, rows, v_stride, length - first, E, BLOCK_E, WHOLE)
        out = out * shrink[:, None] + product(p.to(v.dtype), v, UPCAST)
    return total, highest, out


@varying("documents", "tokens")
@jit
def _forward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    sinks_ptr,
    starts_ptr,
    k_starts_ptr,
    out_ptr,
    sums_ptr,
    q_stride,
    q_head,
    k_stride,
    k_head,
    v_stride,
    v_head,
    documents,
    tokens,
    group,
    scale,
    factor,
    softcap,
    back,
    ahead,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BACK: tl.constexpr,
    AHEAD: tl.constexpr,
    CAPPED: tl.constexpr,
    SINKS: tl.constexpr,
    UPCAST: tl.constexpr,
):
    # the last tiles of a document see the most keys where attention is causal: they start first
    document, number = document_of(starts_ptr, tl.num_programs(0) - 1 - tl.program_id(0), documents, BLOCK_Q)
    head = tl.program_id(1).to(tl.int64)
    begin = tl.load(starts_ptr + document).to(tl.int64)
    queries = tl.load(starts_ptr + document + 1, mask=document < documents, other=tokens) - begin.to(tl.int32)
    first = number * BLOCK_Q
    if first >= queries:
        return
    k_begin = tl.load(k_starts_ptr + document).to(tl.int64)
    keys = tl.load(k_starts_ptr + document + 1, mask=document < documents, other=0) - k_begin.to(tl.int32)
    keys = tl.maximum(keys, 0)  # none after the last document
    rows = tl.arange(0, BLOCK_Q)
    left = queries - first
    q_ptr += (begin + first) * q_stride + head * q_head
    q = rows_of(q_ptr, rows, q_stride, left, D, BLOCK_D, False)
    k_ptr += k_begin * k_stride + head // group * k_head
    v_ptr += k_begin * v_stride + head // group * v_head
    position = first + keys - queries
    positions = position + rows
    total = tl.zeros((BLOCK_Q,), tl.float32)
    highest = tl.full((BLOCK_Q,), -3.0e38, tl.float32)  # finite, so that rows without a key give 0 and no NaN
    if SINKS:  # a key of this score and of value 0
        highest = tl.zeros((BLOCK_Q,), tl.float32) + tl.load(sinks_ptr + head).to(tl.float32) * 1.4426950408889634
        total += 1.0
    out = tl.zeros((BLOCK_Q, BLOCK_E), tl.float32)
    bounds = span(position, keys, back, ahead, BACK, AHEAD, BLOCK_Q, BLOCK_K)
    for part in tl.static_range(0 if BACK else 1, 3):
        total, highest, out = _attend(
            total,
            highest,
            out,
            q,
            k_ptr,
            v_ptr,
            k_stride,
            v_stride,
            positions,
            bounds[part],
            bounds[part + 1],
            keys,
            scale,
            factor,
            softcap,
            back,
            ahead,
            D,
            E,
            BLOCK_D,
            BLOCK_E,
            BLOCK_K,
            BACK,
            AHEAD,
            CAPPED,
            UPCAST,
            part == 1,
        )
    found = total > 0
    out = out / tl.where(found, total, 1.0)[:, None]
    heads = tl.num_programs(1)
    store_rows(out_ptr + ((begin + first) * heads + head) * E, rows, heads * E, left, out, E, BLOCK_E)
    # no key: infinite, so that backward finds exp2(s - L) = 0
    sums = tl.where(found, highest + tl.log2(tl.where(found, total, 1.0)), float("inf"))
    tl.store(sums_ptr + head * tokens + begin + first + rows, sums, mask=rows < left)


def forward(
    q_THD: Tensor,
    k_TGD: Tensor,
    v_TGE: Tensor,
    sinks_H: Tensor | None,
    starts: Tensor,
    k_starts: Tensor,
    settings: Settings,
) -> tuple[Tensor, Tensor]:
    """The sums [T, H, E] in the dtype of q, and L [H, T] in fp32, as a power of two."""
    tokens, heads, _ = q_THD.shape
    width = v_TGE.shape[2]
    out_THE = torch.empty(tokens, heads, width, dtype=q_THD.dtype, device=q_THD.device)
    sums_HT = torch.empty(heads, tokens, dtype=torch.float32, device=q_THD.device)
    options = settings.options("forward", q_THD, v_TGE)
    documents = starts.shape[0] - 1
    launch(
        _forward_kernel,
        (tokens // options["BLOCK_Q"] + documents + 1, heads),
        *(q_THD, k_TGD, v_TGE, sums_HT if sinks_H is None else sinks_H, starts, k_starts, out_THE, sums_HT),
        *(q_THD.stride()[:2] + k_TGD.stride()[:2] + v_TGE.stride()[:2]),
        *(documents, tokens, heads // k_TGD.shape[1], *settings.numbers()),
        SINKS=sinks_H is not None,
        **options,
    )
    return out_THE, sums_HT
