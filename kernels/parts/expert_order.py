"""Tokens sorted by expert, and the way back: each of R tokens goes to J experts, which makes S = R * J rows.

Sorted row s comes from place `sources[s]` of the unsorted, which is token `sources[s] // J`; `places` is the
way back. Both ways are written from the reading side, so that nothing is added in an order of chance. H features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.kernels.launch import as_rows, divide_up, jit, launch, power_of_two, tl, warps


@dataclass(frozen=True, kw_only=True)
class ExpertOrder:
    """How rows are sorted by expert."""

    sources: Tensor  # [S] int64: the place that sorted row s comes from
    places: Tensor  # [S] int64: the sorted row of a place
    ends: Tensor  # [E] int32: where the rows of each expert end
    each: int  # J, the experts of a token


def by_expert(experts_RJ: Tensor, experts: int) -> ExpertOrder:
    """Rows sorted by expert; those of expert number `experts` or above, which is no one here, come last."""
    sorted_S, order_S = torch.sort(experts_RJ.reshape(-1), stable=True)
    numbers = torch.arange(len(order_S), device=order_S.device)
    places_S = torch.empty_like(order_S).scatter_(0, order_S, numbers)
    last_E = torch.arange(experts, device=order_S.device, dtype=sorted_S.dtype)
    ends_E = torch.searchsorted(sorted_S, last_E, right=True, out_int32=True)
    return ExpertOrder(sources=order_S, places=places_S, ends=ends_E, each=experts_RJ.shape[-1])


@jit
def _gather_kernel(
    x_ptr,
    places_ptr,
    weights_ptr,
    y_ptr,
    x_stride,
    features,
    EACH: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    y = tl.zeros((BLOCK,), tl.float32)
    for j in tl.static_range(EACH):
        place = tl.load(places_ptr + row * EACH + j)
        x = tl.load(x_ptr + place * x_stride + column, mask=column < features, other=0.0).to(tl.float32)
        if WEIGHTED:
            x *= tl.load(weights_ptr + row * EACH + j).to(tl.float32)
        y += x
    tl.store(y_ptr + row * features + column, y.to(y_ptr.dtype.element_ty), mask=column < features)


def gathered(x_SH: Tensor, order: ExpertOrder, weights_RJ: Tensor | None = None) -> Tensor:
    """The sum over its experts of what a token has in `x_SH`, times its weights: [R, H], by Triton."""
    x_SH = as_rows(x_SH)
    (rows, features), each = x_SH.shape, order.each
    y_RH = torch.empty(rows // each, features, dtype=x_SH.dtype, device=x_SH.device)
    block = min(power_of_two(features), 1024)
    launch(
        _gather_kernel,
        (rows // each, divide_up(features, block)),
        *(
            x_SH,
            order.places,
            x_SH if weights_RJ is None else weights_RJ.contiguous(),
            y_RH,
            x_SH.stride(0),
            features,
        ),
        EACH=each,
        WEIGHTED=weights_RJ is not None,
        BLOCK=block,
        num_warps=warps(block),
    )
    return y_RH
