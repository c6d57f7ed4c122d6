"""Backward of attention over packed documents: a kernel for dq, then one for dk and dv. No atomics: same bits again.

Dao 2023 (arXiv 2307.08691). With P = exp(s - L) computed anew and delta = rowsum(do * o): dv = P^T do, dp = do v^T,
ds = P * (dp - delta), times 1 - tanh^2 under a softcap, dq = scale * ds k, dk = scale * ds^T q. The first kernel has o
and do at hand and leaves delta for the second, in which a head of keys sums over the heads of queries of its group.
Shapes: T tokens, H heads of queries, G of keys, D and E features of keys and values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from runner.kernels.launch import jit, launch, tl
from runner.kernels.parts.scores import bent, document_of, product, rows_of, seen, span, store_rows, varying
from runner.kernels.parts.varlen import Settings


@jit
def _dq_part(
    dq,
    q,
    do,
    sums,
    delta,
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
    rows = tl.arange(0, BLOCK_K)
    for first in range(start, stop, BLOCK_K):
        at = tl.cast(first, tl.int64)
        k = rows_of(k_ptr + at * k_stride, rows, k_stride, length - first, D, BLOCK_D, WHOLE)
        v = rows_of(v_ptr + at * v_stride, rows, v_stride, length - first, E, BLOCK_E, WHOLE)
        s, slope = bent(product(q, tl.trans(k), UPCAST), scale, softcap, CAPPED)
        p = tl.exp2(s * factor - sums[:, None])
        if not WHOLE:
            keys = first + rows
            visible = seen(positions[:, None], keys[None, :], back, ahead, BACK, AHEAD) & (keys < length)[None, :]
            p = tl.where(visible, p, 0.0)
        ds = p * (product(do, tl.trans(v), UPCAST) - delta[:, None]) * slope
        dq += product(ds.to(k.dtype), k, UPCAST)
    return dq


@varying("documents", "tokens")
@jit
def _dq_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    starts_ptr,
    k_starts_ptr,
    out_ptr,
    sums_ptr,
    do_ptr,
    dq_ptr,
    delta_ptr,
    q_stride,
    q_head,
    k_stride,
    k_head,
    v_stride,
    v_head,
    do_stride,
    do_head,
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
    UPCAST: tl.constexpr,
):
    document, number = document_of(starts_ptr, tl.num_programs(0) - 1 - tl.program_id(0), documents, BLOCK_Q)
    head = tl.program_id(1).to(tl.int64)
    heads = tl.num_programs(1)
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
    begin += first
    q = rows_of(q_ptr + begin * q_stride + head * q_head, rows, q_stride, left, D, BLOCK_D, False)
    do = rows_of(do_ptr + begin * do_stride + head * do_head, rows, do_stride, left, E, BLOCK_E, False)
    out = rows_of(out_ptr + (begin * heads + head) * E, rows, heads * E, left, E, BLOCK_E, False)
    delta = tl.sum(do.to(tl.float32) * out.to(tl.float32), 1)
    tl.store(delta_ptr + head * tokens + begin + rows, delta, mask=rows < left)
    sums = tl.load(sums_ptr + head * tokens + begin + rows, mask=rows < left, other=float("inf"))
    dq = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    position = first + keys - queries
    bounds = span(position, keys, back, ahead, BACK, AHEAD, BLOCK_Q, BLOCK_K)
    for part in tl.static_range(0 if BACK else 1, 3):
        dq = _dq_part(
            dq,
            q,
            do,
            sums,
            delta,
            k_ptr + k_begin * k_stride + head // group * k_head,
            v_ptr + k_begin * v_stride + head // group * v_head,
            k_stride,
            v_stride,
            position + rows,
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
    store_rows(dq_ptr + (begin * heads + head) * D, rows, heads * D, left, dq * scale, D, BLOCK_D)


@jit
def _copied(pointer, rows, limit, other, BLOCK: tl.constexpr):
    """A value for each row, loaded 256 / BLOCK times over: Triton 3.6 loads fewer values than there are threads in the
    layout of their use, here 16 addresses for each thread. ptxas spilled 2,344 bytes with them and 764 without.
    """
    at = rows[None, :] + tl.zeros((256 // BLOCK, 1), tl.int32)
    return tl.max(tl.load(pointer + at, mask=at < limit, other=other), 0)


@jit
def _dkv_part(
    dk,
    dv,
    k,
    v,
    q_ptr,
    do_ptr,
    sums_ptr,
    delta_ptr,
    q_stride,
    do_stride,
    key_rows,
    shift,
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
    BLOCK_Q: tl.constexpr,
    BACK: tl.constexpr,
    AHEAD: tl.constexpr,
    CAPPED: tl.constexpr,
    UPCAST: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Scores stand transposed here, keys by queries. Queries outside hold zeros and L = inf: they add nothing. Keys
    outside add to rows that are not stored. Where `BACK` is off, the whole part goes on to the last query."""
    rows = tl.arange(0, BLOCK_Q)
    for first in range(start, stop, BLOCK_Q):
        at = tl.cast(first, tl.int64)
        q = rows_of(q_ptr + at * q_stride, rows, q_stride, length - first, D, BLOCK_D, WHOLE and BACK)
        do = rows_of(do_ptr + at * do_stride, rows, do_stride, length - first, E, BLOCK_E, WHOLE and BACK)
        sums = _copied(sums_ptr + first, rows, length - first, float("inf"), BLOCK_Q)
        delta = _copied(delta_ptr + first, rows, length - first, 0.0, BLOCK_Q)
        s, slope = bent(product(k, tl.trans(q), UPCAST), scale, softcap, CAPPED)
        p = tl.exp2(s * factor - sums[None, :])
        if (not WHOLE) and (BACK or AHEAD):
            positions = first + rows + shift
            p = tl.where(seen(positions[None, :], key_rows[:, None], back, ahead, BACK, AHEAD), p, 0.0)
        dv += product(p.to(do.dtype), do, UPCAST)
        ds = p * (product(v, tl.trans(do), UPCAST) - delta[None, :]) * slope
        dk += product(ds.to(q.dtype), q, UPCAST)
    return dk, dv


@varying("documents", "tokens", "key_tokens")
@jit
def _dkv_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    starts_ptr,
    k_starts_ptr,
    sums_ptr,
    delta_ptr,
    do_ptr,
    dk_ptr,
    dv_ptr,
    q_stride,
    q_head,
    k_stride,
    k_head,
    v_stride,
    v_head,
    do_stride,
    do_head,
    documents,
    tokens,
    key_tokens,
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
    UPCAST: tl.constexpr,
):
    document, number = document_of(k_starts_ptr, tl.program_id(0), documents, BLOCK_K)
    key_head = tl.program_id(1).to(tl.int64)
    key_heads = tl.num_programs(1)
    k_begin = tl.load(k_starts_ptr + document).to(tl.int64)
    keys = tl.load(k_starts_ptr + document + 1, mask=document < documents, other=key_tokens) - k_begin.to(tl.int32)
    k_first = number * BLOCK_K
    if k_first >= keys:
        return
    begin = tl.load(starts_ptr + document).to(tl.int64)
    queries = tl.load(starts_ptr + document + 1, mask=document < documents, other=0) - begin.to(tl.int32)
    queries = tl.maximum(queries, 0)  # none after the last document
    key_rows = tl.arange(0, BLOCK_K)
    left = keys - k_first
    k_begin += k_first
    k = rows_of(k_ptr + k_begin * k_stride + key_head * k_head, key_rows, k_stride, left, D, BLOCK_D, False)
    v = rows_of(v_ptr + k_begin * v_stride + key_head * v_head, key_rows, v_stride, left, E, BLOCK_E, False)
    dk = tl.zeros((BLOCK_K, BLOCK_D), tl.float32)
    dv = tl.zeros((BLOCK_K, BLOCK_E), tl.float32)
    shift = keys - queries
    bounds = span(k_first - shift, queries, ahead, back, AHEAD, BACK, BLOCK_K, BLOCK_Q)
    for head in range(key_head * group, key_head * group + group):
        for part in tl.static_range(0 if AHEAD else 1, 3 if BACK else 2):
            dk, dv = _dkv_part(
                dk,
                dv,
                k,
                v,
                q_ptr + begin * q_stride + head * q_head,
                do_ptr + begin * do_stride + head * do_head,
                sums_ptr + head * tokens + begin,
                delta_ptr + head * tokens + begin,
                q_stride,
                do_stride,
                k_first + key_rows,
                shift,
                bounds[part],
                bounds[part + 1] if BACK or part == 0 else bounds[3],
                queries,
                scale,
                factor,
                softcap,
                back,
                ahead,
                D,
                E,
                BLOCK_D,
                BLOCK_E,
                BLOCK_Q,
                BACK,
                AHEAD,
                CAPPED,
                UPCAST,
                part == 1,
            )
    store_rows(dk_ptr + (k_begin * key_heads + key_head) * D, key_rows, key_heads * D, left, dk * scale, D, BLOCK_D)
    store_rows(dv_ptr + (k_begin * key_heads + key_head) * E, key_rows, key_heads * E, left, dv, E, BLOCK_E)


def backward(
    q_THD: Tensor,
    k_TGD: Tensor,
    v_TGE: Tensor,
    starts: Tensor,
    k_starts: Tensor,
    out_THE: Tensor,
    sums_HT: Tensor,
    do_THE: Tensor,
    settings: Settings,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk and dv, side by side and in the dtype of what they belong to, and delta [H, T] in fp32."""
    (tokens, heads, _), (key_tokens, key_heads, _) = q_THD.shape, v_TGE.shape
    dq_THD, dk_TGD, dv_TGE = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q_THD, k_TGD, v_TGE))
    delta_HT = torch.empty_like(sums_HT)
    documents = starts.shape[0] - 1
    inputs = (q_THD, k_TGD, v_TGE, starts, k_starts)
    strides = q_THD.stride()[:2] + k_TGD.stride()[:2] + v_TGE.stride()[:2] + do_THE.stride()[:2]
    rest = (heads // key_heads, *settings.numbers())
    options = settings.options("dq", q_THD, v_TGE)
    launch(
        _dq_kernel,
        (tokens // options["BLOCK_Q"] + documents + 1, heads),
        *(*inputs, out_THE, sums_HT, do_THE, dq_THD, delta_HT, *strides, documents, tokens, *rest),
        **options,
    )
    options = settings.options("dkv", q_THD, v_TGE)
    launch(
        _dkv_kernel,
        (key_tokens // options["BLOCK_K"] + documents + 1, key_heads),
        *(*inputs, sums_HT, delta_HT, do_THE, dk_TGD, dv_TGE, *strides, documents, tokens, key_tokens, *rest),
        **options,
    )
    return dq_THD, dk_TGD, dv_TGE, delta_HT
