"""Cross-entropy of logits, with softcap, label smoothing and z-loss. The formulas stand in `parts.vocabulary`.

Softcap: Gemma 2, arXiv 2408.00118. Label smoothing: Szegedy et al. 2015, arXiv 1512.00567, over the whole vocabulary as
in torch. z-loss: Chowdhery et al. 2022 (PaLM), arXiv 2204.02311. The logsumexp runs over blocks of the vocabulary with
a running maximum (Milakov and Gimelshein 2018, arXiv 1805.02867): a row of any width is read once forward, once back.
The gradient has memory of its own: logits stay as they are. Shapes: N rows, V entries of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runner.kernels.launch import as_rows, use_triton
from runner.kernels.parts import vocabulary


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    with_triton: bool | None = None,
) -> Tensor:
    """Loss of `logits` [..., V] for `targets` [...]: the mean over rows not ignored, their sum, or "none"; fp32.

    All rows ignored: 0, and gradients of 0. Raises ValueError for shapes that differ or an unknown reduction.
    """
    options: dict[str, Any] = {"ignore_index": ignore_index, "softcap": softcap, "z_loss": z_loss}
    if not use_triton(logits, with_triton):
        return reference(logits, targets, label_smoothing=label_smoothing, reduction=reduction, **options)
    must_match(logits, targets)
    targets_N = targets.reshape(-1).contiguous()
    losses_N: Tensor = _CrossEntropy.apply(as_rows(logits), targets_N, {"smoothing": label_smoothing, **options})
    loss = vocabulary.reduced(losses_N, targets_N, ignore_index, reduction)
    return loss.view(targets.shape) if reduction == "none" else loss


def reference(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """The same in plain torch."""
    must_match(logits, targets)
    logits_NV, targets_N = as_rows(logits), targets.reshape(-1)
    losses_N = vocabulary.reference(
        logits_NV, targets_N, ignore_index=ignore_index, softcap=softcap, smoothing=label_smoothing, z_loss=z_loss
    )
    loss = vocabulary.reduced(losses_N, targets_N, ignore_index, reduction)
    return loss.view(targets.shape) if reduction == "none" else loss


def must_match(logits: Tensor, targets: Tensor) -> None:
    """Raises ValueError unless there is a target for each row."""
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits are {tuple(logits.shape)}, targets {tuple(targets.shape)}: they must be [..., V], [...]."
        )


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor, options: dict[str, Any]) -> Tensor:
        losses_N, sums_N = vocabulary.losses(logits_NV, targets_N, **options)
        ctx.save_for_backward(logits_NV, targets_N, sums_N)
        ctx.options = options
        return losses_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlosses_N: Tensor) -> tuple[Tensor | None, ...]:
        logits_NV, targets_N, sums_N = ctx.saved_tensors
        out_NV = torch.empty(logits_NV.shape, dtype=logits_NV.dtype, device=logits_NV.device)
        vocabulary.gradients(logits_NV, targets_N, sums_N, dlosses_N.contiguous(), out_NV, **ctx.options)
        return out_NV, None, None
