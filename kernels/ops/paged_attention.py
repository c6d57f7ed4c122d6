"""Decode attention: one query a sequence, over keys and values that lie in pages named by a block table.

The keys of a sequence are cut into splits, each a program that keeps o = softmax(s) v and L = logsumexp(s) of its own
(flash-decoding); a second kernel gives sum of exp(L_i - L) o_i with L = logsumexp over splits. The heads of queries
that share keys are the rows of one tile, so every key is read once. Kwon et al. 2023 (arXiv 2309.06180) have the pages.
Shapes: B sequences, H heads of queries, G of keys and values, D features of queries and keys, E of values, P pages of
S tokens, L entries of the table a sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor

from runner.kernels.launch import divide_up, interpreted, jit, launch, power_of_two, tl, use_triton, wide
from runner.kernels.parts.scores import bent, dense, factor, must_be_positive, product, rows_of, store_rows, varying

SPLITS = 64  # at most: what the second kernel holds at once
ENOUGH = 264  # programs, two for each of Hopper's 132 processors. Fixed: the order of sums depends on shapes alone


def paged_attention(
    q_BHD: Tensor,
    k_pages_PSGD: Tensor,
    v_pages_PSGE: Tensor,
    block_table_BL: Tensor,
    lengths_B: Tensor,
    *,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks_H: Tensor | None = None,
    with_triton: bool | None = None,
) -> Tensor:
    """Attention [B, H, E] of each sequence's newest token, whose own key is the last of `lengths_B`; forward only.

    Token t of sequence b lies in page block_table[b, t // S] at t % S. What is past the length is never read, of the
    table neither. The token sees the last `window` keys, itself included. A sequence of length 0 gives 0, one longer
    than its row of the table NaN. Scores, `softcap` and `sinks_H` as in `varlen_attention`. Raises ValueError for
    shapes that differ, and where a gradient is asked for.
    """
    must_fit(q_BHD, k_pages_PSGD, v_pages_PSGE, block_table_BL, lengths_B, sinks_H)
    scale = q_BHD.shape[2] ** -0.5 if scale is None else scale
    must_be_positive(scale=scale, window=window, softcap=softcap)
    tensors = (q_BHD, k_pages_PSGD, v_pages_PSGE)
    if not use_triton(q_BHD, with_triton):
        return reference(
            *tensors, block_table_BL, lengths_B, scale=scale, window=window, softcap=softcap, sinks_H=sinks_H
        )
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        raise ValueError("paged_attention has no backward: decode under torch.no_grad().")
    q, k, v = (dense(x) for x in tensors)
    return _decode(q, k, v, block_table_BL.contiguous(), lengths_B.contiguous(), sinks_H, scale, window, softcap)


def reference(
    q_BHD: Tensor,
    k_pages_PSGD: Tensor,
    v_pages_PSGE: Tensor,
    block_table_BL: Tensor,
    lengths_B: Tensor,
    *,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks_H: Tensor | None = None,
) -> Tensor:
    """The same in plain torch, sequence after sequence."""
    scale = q_BHD.shape[2] ** -0.5 if scale is None else scale
    size, groups = k_pages_PSGD.shape[1:3]
    out_BHE = torch.zeros(*q_BHD.shape[:2], v_pages_PSGE.shape[3], dtype=q_BHD.dtype, device=q_BHD.device)
    for number, length in enumerate(lengths_B.tolist()):
        if length > block_table_BL.shape[1] * size:
            out_BHE[number] = torch.nan
        elif length:
            pages = block_table_BL[number, : divide_up(length, size)].long()
            first = 0 if window is None else max(length - window, 0)
            k_JHD, v_JHE = (
                wide(x[pages].flatten(0, 1)[first:length]).repeat_interleave(q_BHD.shape[1] // groups, dim=1)
                for x in (k_pages_PSGD, v_pages_PSGE)
            )
            scores_HJ = torch.einsum("hd,jhd->hj", wide(q_BHD[number]), k_JHD) * scale
            if softcap is not None:
                scores_HJ = softcap * torch.tanh(scores_HJ / softcap)
            if sinks_H is not None:
                scores_HJ = torch.cat([scores_HJ, wide(sinks_H)[:, None]], 1)
            weights_HJ = torch.softmax(scores_HJ, 1)[:, : length - first]
            out_BHE[number] = torch.einsum("hj,jhe->he", weights_HJ, v_JHE).to(q_BHD.dtype)
    return out_BHE


def must_fit(q: Tensor, k: Tensor, v: Tensor, table: Tensor, lengths: Tensor, sinks: Tensor | None) -> None:
    """Raises ValueError where shapes or dtypes do not belong together: kernels would read past the end."""
    shapes = [tuple(x.shape) for x in (q, k, v)]
    if q.ndim != 3 or k.ndim != 4 or v.ndim != 4 or k.shape[:3] != v.shape[:3] or q.shape[2] != k.shape[3]:
        raise ValueError(f"q and pages are {shapes}: they must be [B, H, D], [P, S, G, D] and [P, S, G, E].")
    if q.shape[1] % k.shape[2] or not 1 <= min(q.shape[2], v.shape[3]) <= max(q.shape[2], v.shape[3]) <= 256:
        raise ValueError(f"q and pages are {shapes}: G must divide H, and heads have 1 to 256 features.")
    if len({q.dtype, k.dtype, v.dtype}) > 1:
        raise ValueError(f"q and pages are {q.dtype}, {k.dtype} and {v.dtype}: they must be alike.")
    if table.ndim != 2 or lengths.shape != q.shape[:1] or table.shape[:1] != q.shape[:1]:
        found = [tuple(x.shape) for x in (table, lengths)]
        raise ValueError(f"Table and lengths of {q.shape[0]} sequences are {found}: they must be [B, L] and [B].")
    if {table.dtype, lengths.dtype} - {torch.int32, torch.int64}:
        raise ValueError(f"Table and lengths are {table.dtype} and {lengths.dtype}: they must be int32 or int64.")
    if sinks is not None and sinks.shape != q.shape[1:2]:
        raise ValueError(f"There are {tuple(sinks.shape)} sinks for {q.shape[1]} heads: it must be one for each.")


@varying("entries")
@jit
def _split_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    table_ptr,
    lengths_ptr,
    sinks_ptr,
    out_ptr,
    sums_ptr,
    q_stride,
    q_head,
    k_page,
    k_token,
    k_head,
    v_page,
    v_token,
    v_head,
    entries,
    size,
    group,
    scale,
    factor,
    softcap,
    window,
    D: tl.constexpr,
    E: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr,
    SINKS: tl.constexpr,
    ALONE: tl.constexpr,
    UPCAST: tl.constexpr,
):
    split, splits = tl.program_id(0), tl.num_programs(0)
    key_head = tl.program_id(1).to(tl.int64)
    heads = tl.num_programs(1) * group
    sequence = tl.program_id(2).to(tl.int64)
    length = tl.load(lengths_ptr + sequence).to(tl.int32)
    known = length <= entries * size
    length = tl.where(known, length, 0)
    low = 0
    if WINDOWED:
        low = tl.maximum(length - window, 0)
    share = ((length - low + (BLOCK_K - 1)) // BLOCK_K + splits - 1) // splits * BLOCK_K
    start = low + split * share
    stop = tl.minimum(start + share, length)
    rows = tl.arange(0, BLOCK_H)
    head = key_head * group
    q = rows_of(q_ptr + sequence * q_stride + head * q_head, rows, q_head, group, D, BLOCK_D, False)
    highest = tl.full((BLOCK_H,), -3.0e38, tl.float32)
    total = tl.zeros((BLOCK_H,), tl.float32)
    if SINKS:  # a key of this score and of value 0, in one of the splits
        sinks = tl.load(sinks_ptr + head + rows, mask=rows < group, other=0.0).to(tl.float32) * 1.4426950408889634
        highest = tl.where(split == 0, sinks, highest)
        total += tl.where(split == 0, 1.0, 0.0)
    out = tl.zeros((BLOCK_H, BLOCK_E), tl.float32)
    columns, values = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    for first in range(start, stop, BLOCK_K):
        keys = first + tl.arange(0, BLOCK_K)
        inside = keys < stop
        page = tl.load(table_ptr + sequence * entries + keys // size, mask=inside, other=0).to(tl.int64)
        at = page * k_page + keys % size * k_token + key_head * k_head
        k = tl.load(k_ptr + at[:, None] + columns[None, :], mask=inside[:, None] & (columns < D)[None, :], other=0.0)
        s, _ = bent(product(q, tl.trans(k), UPCAST), scale, softcap, CAPPED)
        s = tl.where(inside[None, :], s, -float("inf"))
        higher = tl.maximum(highest, tl.max(s, 1) * factor)
        p = tl.exp2(s * factor - higher[:, None])
        shrink = tl.exp2(highest - higher)
        total = total * shrink + tl.sum(p, 1)
        highest = higher
        at = page * v_page + keys % size * v_token + key_head * v_head
        v = tl.load(v_ptr + at[:, None] + values[None, :], mask=inside[:, None] & (values < E)[None, :], other=0.0)
        out = out * shrink[:, None] + product(p.to(v.dtype), v, UPCAST)
    out = out / tl.where(total > 0, total, 1.0)[:, None]
    out = tl.where(known, out, float("nan"))
    row = (sequence * heads + head) * splits + split
    store_rows(out_ptr + row * E, rows, splits * E, group, out, E, BLOCK_E)
    if not ALONE:  # -3e38 without a key: nothing beside a split that has one, and all equal where none has
        sums = highest + tl.where(total > 0, tl.log2(tl.where(total > 0, total, 1.0)), 0.0)
        tl.store(sums_ptr + row + rows * splits, sums, mask=rows < group)


@varying("splits")
@jit
def _join_kernel(parts_ptr, sums_ptr, out_ptr, splits, E: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, BLOCK_S)
    sums = tl.load(sums_ptr + row * splits + rows, mask=rows < splits, other=-float("inf"))
    shares = tl.exp2(sums - tl.max(sums, 0))
    parts = rows_of(parts_ptr + row * splits * E, rows, E, splits, E, BLOCK_E, False)
    out = tl.sum(parts * (shares / tl.sum(shares, 0))[:, None], 0)
    columns = tl.arange(0, BLOCK_E)
    tl.store(out_ptr + row * E + columns, out.to(out_ptr.dtype.element_ty), mask=columns < E)


def _decode(
    q_BHD: Tensor,
    k_pages_PSGD: Tensor,
    v_pages_PSGE: Tensor,
    block_table_BL: Tensor,
    lengths_B: Tensor,
    sinks_H: Tensor | None,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    (batch, heads, features), (_, size, groups, width) = q_BHD.shape, v_pages_PSGE.shape
    entries = block_table_BL.shape[1]
    block = (
        32 if q_BHD.dtype == torch.float32 or max(features, width) > 128 else 64
    )  # 48 KiB of keys and values at most
    keys = entries * size if window is None else min(window, entries * size)
    splits = max(min(divide_up(ENOUGH, max(batch * groups, 1)), divide_up(keys, block), SPLITS), 1)
    out_BHE = torch.empty(batch, heads, width, dtype=q_BHD.dtype, device=q_BHD.device)
    if not batch:
        return out_BHE
    sums_BHS = torch.empty(batch, heads, splits, dtype=torch.float32, device=q_BHD.device)
    alone = splits == 1
    parts = out_BHE if alone else torch.empty(*sums_BHS.shape, width, dtype=torch.float32, device=q_BHD.device)
    sinks = sums_BHS if sinks_H is None else sinks_H
    launch(
        _split_kernel,
        (splits, groups, batch),
        *(q_BHD, k_pages_PSGD, v_pages_PSGE, block_table_BL, lengths_B, sinks, parts, sums_BHS),
        *(q_BHD.stride()[:2] + k_pages_PSGD.stride()[:3] + v_pages_PSGE.stride()[:3]),
        *(entries, size, heads // groups, scale, factor(scale, softcap), softcap or 1.0, window or 0),
        D=features,
        E=width,
        BLOCK_D=power_of_two(max(features, 16)),
        BLOCK_E=power_of_two(max(width, 16)),
        BLOCK_H=power_of_two(max(heads // groups, 16)),
        BLOCK_K=block,
        WINDOWED=window is not None,
        CAPPED=softcap is not None,
        SINKS=sinks_H is not None,
        ALONE=alone,
        UPCAST=interpreted(),
        num_warps=4,
        num_stages=2,
    )
    if not alone:
        options = {"E": width, "BLOCK_S": power_of_two(splits), "BLOCK_E": power_of_two(width)}
        launch(_join_kernel, (batch * heads,), parts, sums_BHS, out_BHE, splits, **options, num_warps=4)
    return out_BHE
