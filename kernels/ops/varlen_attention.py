"""Attention of documents packed one after the other: softmax(scores) v within each of them, never across.

The score of query i and key j is scale * q_i . k_j, under a softcap c bent to c * tanh(score / c). A sink is one more
score of its head in the denominator, with nothing to add (gpt-oss). Dao 2023, FlashAttention-2 (arXiv 2307.08691): the
scores are never held, forward keeps their logsumexp alone. Kernels: `parts.varlen_forward` and `_backward`.
Shapes: T tokens of queries (of keys where theirs differ), H heads, G heads of keys and values, D features of queries
and keys, E of values (mostly D as well).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runner.kernels.launch import use_triton, wide
from runner.kernels.parts.scores import LOG2_E, dense, must_be_positive, sides
from runner.kernels.parts.varlen import Settings
from runner.kernels.parts.varlen_backward import backward
from runner.kernels.parts.varlen_forward import forward


def varlen_attention(
    q_THD: Tensor,
    k_TGD: Tensor,
    v_TGE: Tensor,
    cu_seqlens: Tensor,
    *,
    max_seqlen: int,
    cu_seqlens_k: Tensor | None = None,
    max_seqlen_k: int | None = None,
    causal: bool = True,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks_H: Tensor | None = None,
    with_triton: bool | None = None,
) -> Tensor:
    """Attention [T, H, E] of documents that begin at `cu_seqlens` [documents + 1], whole numbers on the device.

    Heads of queries h share the keys of head h // (H / G). Keys of other lengths come with `cu_seqlens_k`: the last
    query of a document then stands at its last key. A query sees the keys j at |i - j| < `window`, and none behind
    itself where `causal`: the `sliding_window` that transformers hands to attention functions, for ModernBERT its
    config's + 1. `scale` is 1 / sqrt(D) unless given. Queries without any key, and those after the last document,
    give 0. `max_seqlen` chooses sizes of blocks and never the result. Raises ValueError for shapes that differ.
    """
    must_fit(q_THD, k_TGD, v_TGE, cu_seqlens, cu_seqlens_k, sinks_H)
    must_be_positive(scale=scale, window=window, softcap=softcap)
    if not use_triton(q_THD, with_triton):
        options: dict[str, Any] = {"causal": causal, "scale": scale, "window": window, "softcap": softcap}
        return reference(q_THD, k_TGD, v_TGE, cu_seqlens, cu_seqlens_k=cu_seqlens_k, sinks_H=sinks_H, **options)
    scale = q_THD.shape[2] ** -0.5 if scale is None else scale
    longest = max(max_seqlen, max_seqlen_k or 0)
    settings = Settings(causal=causal, scale=scale, window=window, softcap=softcap, longest=longest)
    starts = cu_seqlens.to(torch.int32).contiguous()
    k_starts = starts if cu_seqlens_k is None else cu_seqlens_k.to(torch.int32).contiguous()
    out: Tensor = _VarlenAttention.apply(dense(q_THD), dense(k_TGD), dense(v_TGE), sinks_H, starts, k_starts, settings)
    return out


def reference(
    q_THD: Tensor,
    k_TGD: Tensor,
    v_TGE: Tensor,
    cu_seqlens: Tensor,
    *,
    cu_seqlens_k: Tensor | None = None,
    causal: bool = True,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks_H: Tensor | None = None,
) -> Tensor:
    """The same in plain torch, document after document, which holds the scores of one."""
    scale = q_THD.shape[2] ** -0.5 if scale is None else scale
    back, ahead = sides(causal, window)
    starts = cu_seqlens.tolist()
    k_starts = starts if cu_seqlens_k is None else cu_seqlens_k.tolist()
    sinks = None if sinks_H is None else wide(sinks_H)
    parts = []
    for begin, end, k_begin, k_end in zip(starts, starts[1:], k_starts, k_starts[1:], strict=False):
        k_HJD, v_HJE = (
            wide(x[k_begin:k_end]).repeat_interleave(q_THD.shape[1] // x.shape[1], dim=1).transpose(0, 1)
            for x in (k_TGD, v_TGE)
        )
        scores_HIJ = wide(q_THD[begin:end]).transpose(0, 1) @ k_HJD.transpose(1, 2) * scale
        if softcap is not None:
            scores_HIJ = softcap * torch.tanh(scores_HIJ / softcap)
        keys = torch.arange(k_end - k_begin, device=q_THD.device)
        positions = torch.arange(end - begin, device=q_THD.device)[:, None] + (k_end - k_begin) - (end - begin)
        hidden_IJ = keys < positions - (math.inf if back is None else back)
        hidden_IJ = hidden_IJ | (keys > positions + (math.inf if ahead is None else ahead))
        parts.append((weights(scores_HIJ, hidden_IJ, sinks) @ v_HJE).transpose(0, 1))
    rest = wide(v_TGE).new_zeros(q_THD.shape[0] - starts[-1], q_THD.shape[1], v_TGE.shape[2])
    return torch.cat([*parts, rest]).to(q_THD.dtype)


def weights(scores_HIJ: Tensor, hidden_IJ: Tensor, sinks_H: Tensor | None) -> Tensor:
    """Softmax over keys that are not hidden, and the sink; rows that see none are 0."""
    heads, queries, keys = scores_HIJ.shape
    blind_I1 = hidden_IJ.all(1, keepdim=True)
    scores_HIJ = scores_HIJ.masked_fill(hidden_IJ & ~blind_I1, -math.inf)  # softmax of nothing would be NaN
    if sinks_H is not None:
        scores_HIJ = torch.cat([scores_HIJ, sinks_H[:, None, None].expand(heads, queries, 1)], 2)
    return torch.softmax(scores_HIJ, 2)[..., :keys].masked_fill(blind_I1, 0.0)


def must_fit(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, k_starts: Tensor | None, sinks: Tensor | None) -> None:
    """Raises ValueError where shapes or dtypes do not belong together: kernels would read past the end."""
    shapes = [tuple(x.shape) for x in (q, k, v)]
    if {len(shape) for shape in shapes} != {3} or k.shape[:2] != v.shape[:2] or q.shape[2] != k.shape[2]:
        raise ValueError(f"q, k and v are {shapes}: they must be [T, H, D], [T, G, D] and [T, G, E].")
    if q.shape[1] % k.shape[1] or not 1 <= min(q.shape[2], v.shape[2]) <= max(q.shape[2], v.shape[2]) <= 256:
        raise ValueError(f"q, k and v are {shapes}: G must divide H, and heads have 1 to 256 features.")
    if k_starts is None and q.shape[0] != k.shape[0]:
        raise ValueError(f"q and k have {q.shape[0]} and {k.shape[0]} tokens: keys of other lengths need cu_seqlens_k.")
    if len({q.dtype, k.dtype, v.dtype}) > 1:
        raise ValueError(f"q, k and v are {q.dtype}, {k.dtype} and {v.dtype}: they must be alike.")
    for name, x in (("cu_seqlens", starts), ("cu_seqlens_k", starts if k_starts is None else k_starts)):
        if x.ndim != 1 or x.shape != starts.shape or x.dtype not in (torch.int32, torch.int64) or not x.numel():
            raise ValueError(f"{name} is {tuple(x.shape)} {x.dtype}: it must be [documents + 1] of int32, from 0 on.")
    if sinks is not None and sinks.shape != q.shape[1:2]:
        raise ValueError(f"There are {tuple(sinks.shape)} sinks for {q.shape[1]} heads: it must be one for each.")


class _VarlenAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_THD: Tensor,
        k_TGD: Tensor,
        v_TGE: Tensor,
        sinks_H: Tensor | None,
        starts: Tensor,
        k_starts: Tensor,
        settings: Settings,
    ) -> Tensor:
        out_THE, sums_HT = forward(q_THD, k_TGD, v_TGE, sinks_H, starts, k_starts, settings)
        ctx.save_for_backward(q_THD, k_TGD, v_TGE, sinks_H, starts, k_starts, out_THE, sums_HT)
        ctx.settings = settings
        return out_THE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do_THE: Tensor) -> tuple[Tensor | None, ...]:
        q_THD, k_TGD, v_TGE, sinks_H, starts, k_starts, out_THE, sums_HT = ctx.saved_tensors
        tensors = (q_THD, k_TGD, v_TGE, starts, k_starts, out_THE, sums_HT, dense(do_THE))
        dq, dk, dv, delta_HT = backward(*tensors, ctx.settings)
        dsinks = None
        if sinks_H is not None:  # a sink's value is 0, so ds = -p * delta, summed over queries
            shares_HT = torch.exp2(sinks_H.float()[:, None] * LOG2_E - sums_HT)
            dsinks = -(shares_HT * delta_HT).sum(1).to(sinks_H.dtype)
        return dq, dk, dv, dsinks, None, None, None
