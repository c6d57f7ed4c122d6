"""Linear and cross-entropy on CPUs: chunks of rows in plain torch, and only rows whose target counts.

The same products and formulas as `runner.kernels.ops.linear_cross_entropy` (see `parts.vocabulary`), without
label smoothing and z-loss. Prompts and padding, which have no target, cost nothing: finding the others needs no
waiting where there is no device. The gradients are made with the loss, so logits are never held beyond one chunk.
Shapes: N rows, C rows of a chunk, H features, V entries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runner.kernels.launch import wide
from runner.kernels.parts import vocabulary

CHUNK = 2**23  # logits held at a time, 32 MiB: 262 rows of a vocabulary of 32k, and matrices are still tall enough


def linear_cross_entropy(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    targets_N: Tensor,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    reduction: str = "mean",
    chunk_rows: int | None = None,
) -> Tensor:
    """The mean of the losses of rows that count, or their sum, in fp32 at least; 0 where none counts."""
    rows = (targets_N != ignore_index).nonzero()[:, 0]
    if len(rows) < len(targets_N):
        hidden_NH, targets_N = hidden_NH.index_select(0, rows), targets_N.index_select(0, rows)
    size = chunk_rows or max(CHUNK // max(weight_VH.shape[0], 1), 32)
    loss: Tensor = _Loss.apply(hidden_NH, weight_VH, targets_N, softcap, size)
    return loss / max(len(rows), 1) if reduction == "mean" else loss


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor, softcap: float | None, size: int
    ) -> Tensor:
        hidden_wanted, weight_wanted, *_ = ctx.needs_input_grad
        weight = weight_VH.to(hidden_NH.dtype)
        dhidden_NH = torch.empty_like(hidden_NH) if hidden_wanted else None
        dweight_VH = torch.zeros_like(weight, dtype=wide(weight[:0]).dtype) if weight_wanted else None
        loss = wide(hidden_NH[:0]).sum()
        for first in range(0, len(targets_N), size):
            here = slice(first, first + size)
            logits_CV = hidden_NH[here] @ weight.T
            losses, gradient = _losses_and_gradient(logits_CV, targets_N[here], softcap)
            loss = loss + losses
            gradient = gradient.to(hidden_NH.dtype)
            if dhidden_NH is not None:
                dhidden_NH[here] = gradient @ weight
            if dweight_VH is not None and dweight_VH.dtype == gradient.dtype:
                dweight_VH.addmm_(gradient.T, hidden_NH[here])
            elif dweight_VH is not None:
                dweight_VH += vocabulary.product_in_fp32(gradient.T, hidden_NH[here])
        ctx.save_for_backward(dhidden_NH, dweight_VH)
        ctx.weight_dtype = weight_VH.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        return vocabulary.scaled_back(ctx, dloss)


def _losses_and_gradient(logits_CV: Tensor, targets_C: Tensor, softcap: float | None) -> tuple[Tensor, Tensor]:
    """Sum of the losses, and the gradient by the logits, made in the memory of the logits where they are fp32."""
    z_CV = wide(logits_CV)
    bent_CV = None
    if softcap is not None:
        bent_CV = torch.tanh(z_CV / softcap)
        z_CV = bent_CV * softcap
    targets_C1 = targets_C[:, None].long()
    sums_C1 = torch.logsumexp(z_CV, dim=-1, keepdim=True)
    losses = (sums_C1 - z_CV.gather(1, targets_C1)).sum()
    gradient_CV = z_CV.sub_(sums_C1).exp_()
    gradient_CV.scatter_add_(1, targets_C1, gradient_CV.new_full(targets_C1.shape, -1.0))
    if bent_CV is not None:
        gradient_CV *= 1 - bent_CV.square()
    return losses, gradient_CV
