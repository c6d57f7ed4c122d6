"""Cross-entropy of hidden @ weight^T without ever holding all logits: rows go in chunks, each forgotten when done.

Of each chunk the logits G are made, then turned into the gradient of the summed loss in the same memory, and with that
dhidden = G @ weight and dweight += G^T @ hidden are known before the next chunk: three products, as without chunks.
Backward only multiplies by the one number that comes in. The sum over chunks is fp32. Formulas of the loss:
`runner.kernels.parts.vocabulary`. Wijmans et al. 2024 (arXiv 2411.09009) show why the logits are what fills the memory.
Chunks depend on shapes alone, so that a step gives the same bits again. Shapes: N rows, H features, V entries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runner.kernels.launch import as_rows, use_triton
from runner.kernels.parts import vocabulary

CHUNK = 2**27  # logits held at a time: 256 MiB in bf16, 1,024 rows of a vocabulary of 128k


def linear_cross_entropy(
    hidden: Tensor,
    weight_VH: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    chunk_rows: int | None = None,
    with_triton: bool | None = None,
) -> Tensor:
    """Loss of `hidden` [..., H] through `weight_VH` for `targets` [...]: the mean over rows not ignored, or the sum.

    All rows ignored: 0, and gradients of 0. Without `chunk_rows`, a chunk holds 2^27 logits. The loss is fp32.
    Raises ValueError for shapes that differ or an unknown reduction.
    """
    must_match(hidden, weight_VH, targets, reduction)
    options: dict[str, Any] = {"ignore_index": ignore_index, "softcap": softcap, "z_loss": z_loss}
    if not use_triton(hidden, with_triton):
        return reference(hidden, weight_VH, targets, label_smoothing=label_smoothing, reduction=reduction, **options)
    rows = chunk_rows or max(CHUNK // max(weight_VH.shape[0], 1), 1)
    options["smoothing"] = label_smoothing
    targets_N = targets.reshape(-1).contiguous()
    loss: Tensor = _LinearCrossEntropy.apply(as_rows(hidden), weight_VH, targets_N, rows, options)
    return loss / (targets_N != ignore_index).sum().clamp(min=1) if reduction == "mean" else loss


def reference(
    hidden: Tensor,
    weight_VH: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """The same in plain torch, which holds the logits."""
    must_match(hidden, weight_VH, targets, reduction)
    targets_N = targets.reshape(-1)
    losses_N = vocabulary.reference(
        as_rows(hidden) @ weight_VH.to(hidden.dtype).T,
        targets_N,
        ignore_index=ignore_index,
        softcap=softcap,
        smoothing=label_smoothing,
        z_loss=z_loss,
    )
    return vocabulary.reduced(losses_N, targets_N, ignore_index, reduction)


def must_match(hidden: Tensor, weight_VH: Tensor, targets: Tensor, reduction: str) -> None:
    """Raises ValueError unless there is a target for each row, and a weight for each feature."""
    if hidden.shape[:-1] != targets.shape or hidden.shape[-1] != weight_VH.shape[-1]:
        shapes = [tuple(x.shape) for x in (hidden, weight_VH, targets)]
        raise ValueError(f"hidden, weight and targets are {shapes}: they must be [..., H], [V, H] and [...].")
    if reduction not in {"mean", "sum"}:
        raise ValueError(f"Unknown reduction {reduction!r}: it is 'mean' or 'sum'.")


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor, rows: int, options: dict[str, Any]
    ) -> Tensor:
        hidden_wanted, weight_wanted, *_ = ctx.needs_input_grad
        weight = weight_VH.to(hidden_NH.dtype)
        dhidden_NH = torch.empty(hidden_NH.shape, dtype=hidden_NH.dtype, device=hidden_NH.device)
        # a frozen head, as with adapters, costs neither the memory nor the product
        dweight_VH = (
            torch.zeros(weight_VH.shape, dtype=torch.float32, device=hidden_NH.device) if weight_wanted else None
        )
        loss = torch.zeros((), dtype=torch.float32, device=hidden_NH.device)
        for first in range(0, hidden_NH.shape[0], rows):
            here = slice(first, first + rows)
            logits_CV = hidden_NH[here] @ weight.T
            losses_C, sums_C = vocabulary.losses(logits_CV, targets_N[here], **options)
            loss = loss + losses_C.sum()
            if not (hidden_wanted or weight_wanted):
                continue
            vocabulary.gradients(logits_CV, targets_N[here], sums_C, None, logits_CV, **options)
            if hidden_wanted:
                dhidden_NH[here] = logits_CV @ weight
            if dweight_VH is not None:
                dweight_VH += vocabulary.product_in_fp32(logits_CV.T, hidden_NH[here])
        ctx.save_for_backward(dhidden_NH if hidden_wanted else None, dweight_VH)
        ctx.weight_dtype = weight_VH.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        return vocabulary.scaled_back(ctx, dloss)
