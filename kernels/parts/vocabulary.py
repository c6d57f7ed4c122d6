"""The loss of rows of logits and its gradient, shared by cross-entropy on logits and on hidden states.

With z = cap * tanh(logits / cap), or the logits themselves, l = logsumexp(z), target t and smoothing a, a row's loss is
(1 - a) * (l - z_t) + a * (l - mean(z)) + zeta * l^2, and its gradient by z_v, with p = exp(z - l):
p_v * (1 + 2 zeta l) - (1 - a) * [v = t] - a / V; by the logit, that times 1 - tanh^2. Ignored rows have 0 of both.
Shapes: N rows, V entries of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from runner.kernels.launch import divide_up, jit, launch, power_of_two, tl, warps, wide

WIDEST = 8192


def reference(
    logits_NV: Tensor, targets_N: Tensor, *, ignore_index: int, softcap: float | None, smoothing: float, z_loss: float
) -> Tensor:
    """Loss of every row in plain torch, in fp32 at least."""
    z_NV = wide(logits_NV)
    if softcap is not None:
        z_NV = softcap * torch.tanh(z_NV / softcap)
    valid_N = targets_N != ignore_index
    sums_N = torch.logsumexp(z_NV, dim=-1)
    target_N = z_NV.gather(1, torch.where(valid_N, targets_N, 0)[:, None].long())[:, 0]
    losses_N = sums_N - (1 - smoothing) * target_N + z_loss * sums_N.square()
    if smoothing:
        losses_N = losses_N - smoothing * z_NV.mean(-1)
    return torch.where(valid_N, losses_N, 0.0)


def product_in_fp32(one: Tensor, other: Tensor) -> Tensor:
    """Their product, never rounded to 16 bits: in fp16 a sum over thousands of rows passes 65,504."""
    if one.dtype != torch.float32 and one.is_cuda:
        return torch.mm(one, other, out_dtype=torch.float32)
    with torch.autocast(one.device.type, enabled=False):
        return one.float() @ other.float()


def scaled_back(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
    """Backward of a loss whose forward has saved its gradients by hidden states and by the head, if any, and 3 more."""
    dhidden_NH, dweight_VH = ctx.saved_tensors
    dhidden = None if dhidden_NH is None else (dhidden_NH * dloss).to(dhidden_NH.dtype)
    dweight = None if dweight_VH is None else (dweight_VH * dloss).to(ctx.weight_dtype)
    return dhidden, dweight, None, None, None


def reduced(losses_N: Tensor, targets_N: Tensor, ignore_index: int, reduction: str) -> Tensor:
    """Losses as they are, their sum, or their mean over rows that are not ignored: 0 where all are."""
    if reduction == "none":
        return losses_N
    if reduction == "sum":
        return losses_N.sum()
    if reduction == "mean":
        return losses_N.sum() / (targets_N != ignore_index).sum().clamp(min=1)
    raise ValueError(f"Unknown reduction {reduction!r}: it is 'mean', 'sum' or 'none'.")


@jit
def tanh(x):
    """By its series near 0, where 1 - 2 / (exp(2x) + 1) would lose digits."""
    s = x * x
    near = x * (1.0 + s * (-0.33333334 + s * (0.13333334 + s * (-0.053968254 + s * 0.021869488))))
    far = 1.0 - 2.0 / (tl.exp(2.0 * tl.abs(x)) + 1.0)
    return tl.where(tl.abs(x) < 0.25, near, tl.where(x < 0, -far, far))


@jit
def _losses_kernel(
    logits_ptr,
    targets_ptr,
    losses_ptr,
    sums_ptr,
    row_stride,
    entries,
    ignored,
    softcap,
    smoothing,
    z_loss,
    CAPPED: tl.constexpr,
    SMOOTHED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets_ptr + row).to(tl.int64)
    logits_ptr += row * row_stride
    # finite, so that a block of nothing but -inf gives 0 and no NaN
    highest = -3.0e38
    total = 0.0
    summed = 0.0
    if target != ignored:
        for start in range(0, entries, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            z = tl.load(logits_ptr + columns, mask=columns < entries, other=-float("inf")).to(tl.float32)
            if CAPPED:
                z = tl.where(columns < entries, softcap * tanh(z / softcap), -float("inf"))
            if SMOOTHED:
                summed += tl.sum(tl.where(columns < entries, z, 0.0), 0)
            higher = tl.maximum(highest, tl.max(z, 0))
            total = total * tl.exp(highest - higher) + tl.sum(tl.exp(z - higher), 0)
            highest = higher
        logsum = highest + tl.log(total)
        # a target outside the vocabulary reads nothing and gives NaN, which is seen
        known = (target >= 0) & (target < entries)
        z_target = tl.load(logits_ptr + target, mask=known, other=float("nan")).to(tl.float32)
        if CAPPED:
            z_target = softcap * tanh(z_target / softcap)  # which hands NaN on
        loss = logsum - (1.0 - smoothing) * z_target + z_loss * logsum * logsum
        if SMOOTHED:
            loss -= smoothing * summed / entries
        tl.store(losses_ptr + row, loss)
        tl.store(sums_ptr + row, logsum)
    else:
        tl.store(losses_ptr + row, 0.0)
        tl.store(sums_ptr + row, 0.0)


@jit
def _gradients_kernel(
    logits_ptr,
    targets_ptr,
    sums_ptr,
    scales_ptr,
    out_ptr,
    row_stride,
    out_stride,
    entries,
    ignored,
    softcap,
    smoothing,
    z_loss,
    CAPPED: tl.constexpr,
    SCALED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    target = tl.load(targets_ptr + row).to(tl.int64)
    gradient = tl.zeros((BLOCK,), tl.float32)
    if target != ignored:
        logsum = tl.load(sums_ptr + row)
        z = tl.load(logits_ptr + row * row_stride + columns, mask=columns < entries, other=0.0).to(tl.float32)
        slope = 1.0
        if CAPPED:
            bent = tanh(z / softcap)
            z = softcap * bent
            slope = 1.0 - bent * bent
        gradient = tl.exp(z - logsum) * (1.0 + 2.0 * z_loss * logsum) - smoothing / entries
        gradient = (gradient - tl.where(columns == target, 1.0 - smoothing, 0.0)) * slope
        if SCALED:
            gradient *= tl.load(scales_ptr + row)
    tl.store(out_ptr + row * out_stride + columns, gradient.to(out_ptr.dtype.element_ty), mask=columns < entries)


def losses(
    logits_NV: Tensor, targets_N: Tensor, *, ignore_index: int, softcap: float | None, smoothing: float, z_loss: float
) -> tuple[Tensor, Tensor]:
    """Loss and logsumexp of every row, both fp32; rows of logits need not follow each other densely."""
    rows, entries = logits_NV.shape
    losses_N, sums_N = (torch.empty(rows, dtype=torch.float32, device=logits_NV.device) for _ in range(2))
    block = min(power_of_two(entries), WIDEST)
    sizes = (logits_NV.stride(0), entries, ignore_index, softcap or 0.0, smoothing, z_loss)
    options = {"CAPPED": softcap is not None, "SMOOTHED": smoothing != 0, "BLOCK": block, "num_warps": warps(block)}
    launch(_losses_kernel, (rows,), logits_NV, targets_N, losses_N, sums_N, *sizes, **options)
    return losses_N, sums_N


def gradients(
    logits_NV: Tensor,
    targets_N: Tensor,
    sums_N: Tensor,
    scales_N: Tensor | None,
    out_NV: Tensor,
    *,
    ignore_index: int,
    softcap: float | None,
    smoothing: float,
    z_loss: float,
) -> None:
    """Gradient of every row's loss times its scale into `out_NV`: may be the logits where they are the caller's own."""
    rows, entries = logits_NV.shape
    block = min(power_of_two(entries), WIDEST // 2)
    sizes = (logits_NV.stride(0), out_NV.stride(0), entries, ignore_index, softcap or 0.0, smoothing, z_loss)
    options = {"CAPPED": softcap is not None, "SCALED": scales_N is not None, "BLOCK": block, "num_warps": warps(block)}
    scales = sums_N if scales_N is None else scales_N
    tensors = (logits_NV, targets_N, sums_N, scales, out_NV)
    launch(_gradients_kernel, (rows, divide_up(entries, block)), *tensors, *sizes, **options)
