"""A frozen linear layer with a low-rank one beside it: y = x W^T + scale * (x A^T) B^T + bias. W may be quantised.

Hu et al. 2021 (LoRA, arXiv 2106.09685), Dettmers et al. 2023 (QLoRA, arXiv 2305.14314). With S = x A^T, which is saved:
dS = scale * dy B, dB = scale * dy^T S, dA = dS^T x and dx = dy W + dS A. The gradient of W is never formed, and W in
full precision lives for one product of one layer at a time. With dropout only S sees the dropped x.
DoRA (Liu et al. 2024, arXiv 2402.09353) scales each row: y = g * (x W^T + scale * S B^T) + bias with
g = m / ||W + scale B A||, whose norm counts as a constant in the gradient and never forms B A (`row_norms`). With
dropout the rescaling sees the dropped x: y = (x - x') W^T + g * (x' W^T + scale * S B^T) + bias, as PEFT has it.
Every product with W goes one of four paths (`parts.frozen`). Shapes: M rows, K inputs, N outputs, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from runner.kernels.launch import as_rows, use_triton, wide
from runner.kernels.parts.frozen import PATHS, Frozen, Weight, native_refusal, plain

PIECE = 2**24  # numbers that are cast to fp32 at a time where adapters are fp32 and x is not: 64 MiB


def lora_linear(
    x: Tensor,
    weight: Weight,
    a_RK: Tensor,
    b_NR: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    magnitude_N: Tensor | None = None,
    dropout: float = 0.0,
    path: str | None = None,
    with_triton: bool | None = None,
) -> Tensor:
    """`x` [..., K] through `weight` [N, K] and its low-rank term: [..., N] in x's dtype. W is frozen.

    The low-rank term is computed in the wider of x's and A's dtype; under autocast all is in autocast's. `dropout`
    draws as `torch.nn.functional.dropout` does. Without a `path` the fastest is taken, which is measured once
    (`runner.kernels.calibration`; off GPUs `dequantised`). Raises ValueError for shapes that do not fit, a weight that
    wants a gradient or a path that this weight cannot take, RuntimeError where Triton is needed and not installed.
    """
    layer = (weight, a_RK, b_NR, scale, bias)
    return _apply(x, [layer], [magnitude_N], dropout, path, with_triton)[0]


def lora_linears(
    x: Tensor,
    layers: Sequence[tuple[Weight, Tensor, Tensor, float, Tensor | None]],
    *,
    path: str | None = None,
    with_triton: bool | None = None,
) -> tuple[Tensor, ...]:
    """`x` through several layers (weight, A, B, scale, bias): one product for all S, one gradient of x.

    The rest is as for one layer.
    """
    return _apply(x, layers, [None] * len(layers), 0.0, path, with_triton)


def reference(
    x: Tensor,
    weight: Weight,
    a_RK: Tensor,
    b_NR: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    magnitude_N: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """The same in plain torch, which forms B A for the norms."""
    weight_NK = plain(weight, x.dtype)
    dropped = torch.nn.functional.dropout(x, dropout)
    low = torch.promote_types(x.dtype, a_RK.dtype)
    term = scale * ((dropped.to(low) @ a_RK.to(low).T) @ b_NR.to(low).T)
    if magnitude_N is None:
        y = x @ weight_NK.T + term
    else:
        norms_N = (wide(weight_NK) + scale * wide(b_NR.detach()) @ wide(a_RK.detach())).norm(dim=1)
        gain_N = magnitude_N / norms_N
        y = (x - dropped) @ weight_NK.T + gain_N * (dropped @ weight_NK.T + term)
    return (y if bias is None else y + bias).to(x.dtype)


def _apply(
    x: Tensor,
    layers: Sequence[tuple[Weight, Tensor, Tensor, float, Tensor | None]],
    magnitudes: Sequence[Tensor | None],
    dropout: float,
    path: str | None,
    with_triton: bool | None,
) -> tuple[Tensor, ...]:
    by_triton = path in {"fused", "epilogue"}
    if by_triton and with_triton is False:
        raise ValueError(f"The path {path!r} is Triton's, and Triton is ruled out: take 'dequantised'.")
    triton = use_triton(x, by_triton or with_triton)
    frozen, tensors = [], []
    for (weight, a_RK, b_NR, scale, bias), magnitude_N in zip(layers, magnitudes, strict=True):
        _must_match(x, weight, a_RK, b_NR, path)
        frozen.append(Frozen(weight=weight, scale=scale, path=path, with_triton=triton))
        tensors += [a_RK, b_NR, bias, magnitude_N]
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, tensors = x.to(dtype), [None if one is None else one.to(dtype) for one in tensors]
    # shaped outside: what a Function gives as a view may not be changed in place, which models do
    outputs: tuple[Tensor, ...] = _LoraLinears.apply(as_rows(x), dropout, frozen, *tensors)
    return tuple(y_MN.view(*x.shape[:-1], y_MN.shape[1]) for y_MN in outputs)


def _must_match(x: Tensor, weight: Weight, a_RK: Tensor, b_NR: Tensor, path: str | None) -> None:
    shapes = (x.shape[-1:], weight.shape, a_RK.shape, b_NR.shape)
    outputs, inputs = weight.shape
    if (x.shape[-1], a_RK.shape[1], *b_NR.shape) != (inputs, inputs, outputs, a_RK.shape[0]):
        raise ValueError(f"x, W, A, B are {[tuple(s) for s in shapes]}: they must be [..., K], [N, K], [R, K], [N, R].")
    if isinstance(weight, Tensor) and weight.requires_grad:
        raise ValueError(
            "The weight wants a gradient, and this layer never forms it: freeze it (requires_grad_(False))."
        )
    if path is not None and path not in PATHS:
        raise ValueError(f"Unknown path {path!r}: it is one of {', '.join(PATHS)}.")
    why = native_refusal(weight, x.device) if path == "native" else None
    if why is not None:
        raise ValueError(f"The native path cannot be had: {why}. Take another of {', '.join(PATHS)}.")


def row_norms(weight: Weight, a_RK: Tensor, b_NR: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """||W + scale B A|| of each row, fp32: the square is ||W||^2 + 2 scale (W A^T) . B + scale^2 (B (A A^T)) . B."""
    exact = torch.promote_types(dtype, torch.float32)
    low = torch.promote_types(dtype, a_RK.dtype)
    pieces = plain(weight, dtype).split(max(PIECE // a_RK.shape[1], 1))
    squares_N = torch.cat([torch.linalg.vector_norm(piece, dim=1, dtype=exact).square() for piece in pieces])
    crossed_NR = torch.cat([piece.to(low) @ a_RK.to(low).T for piece in pieces]).to(exact)
    a_RK, b_NR = a_RK.to(exact), b_NR.to(exact)
    squares_N += ((2 * scale * crossed_NR + scale**2 * (b_NR @ (a_RK @ a_RK.T))) * b_NR).sum(1)
    norms_N: Tensor = squares_N.clamp_(min=torch.finfo(exact).tiny).sqrt_()
    return norms_N


class _LoraLinears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, dropout: float, frozen: list[Frozen], *tensors: Any) -> Any:
        ctx.ranks = [a.shape[0] for a in tensors[::4]]
        a_RK = _stacked(tensors[::4])
        low = torch.promote_types(x_MK.dtype, a_RK.dtype)
        dropped_MK, kept_MK = torch.native_dropout(x_MK.to(low), dropout, True) if dropout else (x_MK, None)
        s_MR = _down(dropped_MK, a_RK.to(low).T)
        outputs, saved = [], []
        for number, (one, s) in enumerate(zip(frozen, s_MR.split(ctx.ranks, 1), strict=True)):
            a, b, bias, magnitude = tensors[4 * number : 4 * number + 4]
            y_MN, z_MN, norms_N = _forward(one, x_MK, dropped_MK, s, a, b, bias, magnitude)
            outputs.append(y_MN)
            saved += [z_MN, norms_N]
        # x serves the gradient of A alone, which is not wanted where adapters are frozen too
        ctx.save_for_backward(x_MK if any(ctx.needs_input_grad[3::4]) else None, kept_MK, s_MR, *tensors, *saved)
        ctx.frozen, ctx.dropout = frozen, dropout
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> Any:
        x_MK, kept_MK, s_MR, *rest = ctx.saved_tensors
        tensors, saved = rest[: 4 * len(dys)], rest[4 * len(dys) :]
        dx_MK, ds, gradients = None, [], []
        for number, (one, s) in enumerate(zip(ctx.frozen, s_MR.split(ctx.ranks, 1), strict=True)):
            a, b, bias, magnitude = tensors[4 * number : 4 * number + 4]
            z_MN, norms_N = saved[2 * number : 2 * number + 2]
            dy_MN = as_rows(dys[number])
            _, db, dbias, dmagnitude = ctx.needs_input_grad[3 + 4 * number : 7 + 4 * number]
            wide_MN = dy_MN if norms_N is None else dy_MN * (magnitude / norms_N)
            dz_MN = wide_MN.to(dy_MN.dtype)
            ds.append(_down(wide_MN, b.to(s.dtype)).mul_(one.scale))
            gradients += [
                None,
                _across(s, wide_MN).T.mul(one.scale).to(b.dtype) if db else None,
                wide(dy_MN).sum(0).to(bias.dtype) if dbias else None,
                ((wide(dy_MN) * z_MN).sum(0) / norms_N).to(magnitude.dtype) if dmagnitude else None,
            ]
            if ctx.needs_input_grad[0]:
                dx_MK = _dx(one, dy_MN, dz_MN, ds[-1], a, kept_MK, ctx.dropout, dx_MK)
        if x_MK is not None:
            dropped_MK = x_MK if kept_MK is None else _masked(x_MK.to(s_MR.dtype), kept_MK, ctx.dropout)
            for number, da in enumerate(_across(_stacked(ds, 1), dropped_MK).split(ctx.ranks)):
                gradients[4 * number] = da.to(tensors[4 * number].dtype)
        return (dx_MK, None, None, *gradients)


def _stacked(tensors: Sequence[Tensor | None], dim: int = 0) -> Tensor:
    present = [one for one in tensors if one is not None]
    return present[0] if len(present) == 1 else torch.cat(present, dim)


def _down(x_MC: Tensor, factor_CR: Tensor) -> Tensor:
    """x @ factor in the factor's dtype, to which x is cast a piece at a time."""
    if x_MC.dtype == factor_CR.dtype:
        return x_MC @ factor_CR
    return torch.cat([piece.to(factor_CR.dtype) @ factor_CR for piece in x_MC.split(_rows(x_MC))])


def _across(low_MR: Tensor, x_MC: Tensor) -> Tensor:
    """low^T @ x [R, C] in low's dtype, to which x is cast a piece at a time."""
    if x_MC.dtype == low_MR.dtype:
        return low_MR.T @ x_MC
    total_RC = torch.zeros(low_MR.shape[1], x_MC.shape[1], dtype=low_MR.dtype, device=low_MR.device)
    for low, piece in zip(low_MR.split(_rows(x_MC)), x_MC.split(_rows(x_MC)), strict=True):
        total_RC.addmm_(low.T, piece.to(low.dtype))
    return total_RC


def _rows(x_MC: Tensor) -> int:
    return max(PIECE // max(x_MC.shape[1], 1), 1)


def _masked(x: Tensor, kept: Tensor, dropout: float) -> Tensor:
    return (x * kept).mul_(1 / (1 - dropout))


def _forward(
    one: Frozen,
    x_MK: Tensor,
    dropped_MK: Tensor,
    s_MR: Tensor,
    a_RK: Tensor,
    b_NR: Tensor,
    bias: Tensor | None,
    magnitude_N: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """y, and where rows are rescaled, what was rescaled and the norms of the rows."""
    if magnitude_N is None:
        return one.times(x_MK, s_MR, b_NR.T, transposed=False, bias=bias), None, None
    norms_N = row_norms(one.weight, a_RK, b_NR, one.scale, x_MK.dtype)
    inner_MK = dropped_MK.to(x_MK.dtype)
    if s_MR.dtype == x_MK.dtype:
        z_MN = one.times(inner_MK, s_MR, b_NR.T, transposed=False)
    else:  # rounding the sum, of which the gradient of the magnitude is made, would cost what adapters in fp32 are for
        base_MN = one.times(inner_MK, None, None, transposed=False).to(s_MR.dtype)
        z_MN = base_MN.addmm_(s_MR, b_NR.to(s_MR.dtype).T, alpha=one.scale)
    y_MN = z_MN * (magnitude_N / norms_N)
    if dropped_MK is not x_MK:
        y_MN += one.times(x_MK - inner_MK, None, None, transposed=False)
    return (y_MN if bias is None else y_MN.add_(bias)).to(x_MK.dtype), z_MN, norms_N


def _dx(
    one: Frozen,
    dy_MN: Tensor,
    dz_MN: Tensor,
    ds_MR: Tensor,
    a_RK: Tensor,
    kept_MK: Tensor | None,
    dropout: float,
    into: Tensor | None,
) -> Tensor:
    """The gradient of x through one layer, added to `into`."""
    if kept_MK is None:
        return one.times(dz_MN, ds_MR, a_RK, transposed=True, into=into)
    dx_MK = one.times(dy_MN, None, None, transposed=True, into=into)
    if dz_MN is dy_MN:
        inner_MK = ds_MR @ a_RK.to(ds_MR.dtype)
    else:
        inner_MK = one.times(dz_MN - dy_MN, ds_MR, a_RK, transposed=True)
    return dx_MK.add_(_masked(inner_MK, kept_MK, dropout))
