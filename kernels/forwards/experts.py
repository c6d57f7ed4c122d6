"""Experts of any family whose class transformers' `use_experts_implementation` has decorated."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from runner.kernels.experts import experts_forward
from runner.kernels.places import Edit, Function, Request, UnfitError, forward, must_agree, must_be_dense, sample

TOLD = ("num_experts", "has_gate", "has_bias", "is_transposed")  # what the decorator says of a class


def grouped(module: Any, request: Request) -> list[Edit]:
    """The stack of matrices of all experts."""
    if missing := [name for name in TOLD if not hasattr(module, name)]:
        raise UnfitError(f"it does not say its {missing[0]}: it takes experts of transformers' experts registry")
    names = ["gate_up_proj" if module.has_gate else "up_proj", "down_proj"]
    weights = [must_be_dense(module, name) for name in (*names, *(f"{name}_bias" for name in names if module.has_bias))]
    if len({weight.dtype for weight in weights}) > 1:
        raise UnfitError(f"its matrices are {', '.join(sorted({str(weight.dtype) for weight in weights}))}")
    ours = partial(_experts, with_triton=request.with_triton)

    def make(_module: nn.Module) -> Function:
        return ours

    if (first := type(module)) not in request.shared:  # all of a class compute the same: one is enough
        routed = _Routed(module)
        x = sample(4, weights[0], weights[0].shape[1 if module.is_transposed else 2])
        must_agree(routed, partial(_routed, ours=ours), x)
        request.shared[first] = True
    return [forward(module, request, make)]


def _experts(module: nn.Module, *args: Any, with_triton: bool | None, **kwargs: Any) -> Tensor:
    return experts_forward(module, *args, **kwargs, with_triton=with_triton)


class _Routed(nn.Module):
    """Experts with the same route for every call: one token to each of the first ones, and one to the last."""

    def __init__(self, experts: Any) -> None:
        super().__init__()
        self.experts: Any = experts

    def forward(self, x: Tensor) -> Tensor:
        return _routed(self, x, ours=type(self.experts).forward)


def _routed(self: _Routed, x: Tensor, *, ours: Function) -> Tensor:
    last = int(self.experts.num_experts) - 1
    indices = torch.tensor([[min(row, last)] for row in range(len(x) - 1)] + [[last]], device=x.device)
    y: Tensor = ours(self.experts, x, indices, torch.linspace(0.5, 1.0, len(x)).to(x).unsqueeze(1))
    return y
