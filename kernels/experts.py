"""Experts of transformers through our kernels: for its own registry, under the name "runner", and for patches.

Five launches forward: the sort, up and gate of all experts in one (tokens are read where they lie), the gate's
activation, down, and the sum over the experts of a token. Nothing waits for the device, nothing is added in an order
of chance, and tokens routed to experts that are not here (their number is `num_experts` or above) cost nothing.

On a CPU transformers' own grouped_mm takes over, which is as fast as what we could do there: one layer, forward and
backward in fp32 on one thread of a shared machine, took 13, 71 and 13 ms with it, 19, 101 and 20 ms with our steps in
plain torch and 56, 140 and 201 ms with its loop (8 experts of 256 x 512 for 64 and for 1,024 tokens, 64 of 128 x 64).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, _default_apply_gate, grouped_mm_experts_forward

from runner.kernels.launch import use_triton
from runner.kernels.ops.combine_experts import combine_experts
from runner.kernels.ops.grouped_linear import grouped_linear
from runner.kernels.ops.swiglu import swiglu
from runner.kernels.parts.expert_order import ExpertOrder, by_expert

NAME = "runner"


def register() -> None:
    """Make `experts_forward` known to transformers: `model.set_experts_implementation("runner")` then takes it."""
    ALL_EXPERTS_FUNCTIONS.register(NAME, experts_forward)


def experts_forward(
    self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor, *, with_triton: bool | None = None
) -> Tensor:
    """What the experts `self` make of tokens [R, H], each going to experts [R, J] with weights [R, J]: [R, H].

    `self` is a module that transformers' `use_experts_implementation` has decorated. With `with_triton=False` our own
    steps run in plain torch, also on a GPU.
    """
    if with_triton is None and not use_triton(hidden_states, None):
        own: Tensor = grouped_mm_experts_forward(self, hidden_states, top_k_index, top_k_weights)
        return own
    order = by_expert(top_k_index, self.num_experts)
    first = "gate_up_proj" if self.has_gate else "up_proj"
    up_SF = _grouped(self, first, hidden_states, order, order, with_triton)
    up_SF = _activated(self, up_SF, with_triton)
    down_SH = _grouped(self, "down_proj", up_SF, order, None, with_triton)
    return combine_experts(down_SH, top_k_weights, order, with_triton=with_triton).to(hidden_states.dtype)


def _grouped(
    self: Any, name: str, x: Tensor, order: ExpertOrder, unsorted: ExpertOrder | None, with_triton: bool | None
) -> Tensor:
    weight = getattr(self, name)
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else weight.dtype
    return grouped_linear(
        x.to(dtype),
        weight.to(dtype),
        order.ends,
        bias_EN=getattr(self, f"{name}_bias").to(dtype) if self.has_bias else None,
        transposed=self.is_transposed,
        order=unsorted,
        with_triton=with_triton,
    )


def _activated(self: Any, up_SF: Tensor, with_triton: bool | None) -> Tensor:
    if not self.has_gate:
        y: Tensor = self.act_fn(up_SF)
        return y
    plain = type(self)._apply_gate is _default_apply_gate
    if plain and isinstance(self.act_fn, SiLUActivation | nn.SiLU):
        return swiglu(*up_SF.chunk(2, dim=-1), with_triton=with_triton)
    gated: Tensor = self._apply_gate(up_SF)
    return gated
