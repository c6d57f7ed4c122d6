"""Layers whose weights lie in oneDNN's own order. The operators are those of torch's inductor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from runner.asr.mixed import held


class OneDnnLinear(nn.Module):
    """A linear layer in ``dtype``, whatever comes in: autocast does not know oneDNN's operators."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), None)
        self.bias = None if bias is None else bias.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, "none", [], "")
        return y


class PlainLinear(nn.Module):
    """The same through torch's own product, which autocast knows."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias)


class OneDnnConvolution(nn.Module):
    """A convolution over time with its weight in oneDNN's order; left to itself, torch reorders it at every call."""

    def __init__(self, plain: nn.Conv1d) -> None:
        super().__init__()
        ones, self.padding, self.groups = [1, 1], [0, int(plain.padding[0])], plain.groups
        weight = plain.weight.detach()[:, :, None]
        shape = [1, plain.in_channels, 1, 500]  # a typical window; the order suits all lengths
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(
            weight.contiguous(), self.padding, ones, ones, self.groups, shape
        )
        self.bias = bias_of(plain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, channels, frames] to the same."""
        ones = [1, 1]
        y: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            x[:, :, None].contiguous(), self.weight, self.bias, self.padding, ones, ones, self.groups, "none", [], ""
        )
        return y[:, :, 0]


def bias_of(module: Any) -> torch.Tensor | None:
    return None if module.bias is None else module.bias.detach().clone()


def use_onednn(model: Any, dtype: torch.dtype) -> None:
    """Replace linear layers and positional convolutions one by one, so that no weight is there twice for long."""
    exact = held(model)

    def linear(plain: Any) -> nn.Module:
        return OneDnnLinear(plain.weight.detach(), bias_of(plain), torch.float32 if plain in exact else dtype)

    _replace(model, nn.Linear, linear)
    _replace(model.base_model.encoder, nn.Conv1d, OneDnnConvolution)
    for kept in (*model.parameters(), *model.buffers()):
        kept.data = kept.data.clone()  # one tensor that lies in the mapped file keeps all of it (1.3 GB) in memory


def _replace(model: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> None:
    places = [(parent, name) for parent in model.modules() for name, m in parent.named_children() if type(m) is kind]
    for parent, name in places:
        setattr(parent, name, make(getattr(parent, name)))
