"""Two number formats in one model: the many products in the fast one, what they add up to in fp32.

Weights stay in fp32, and torch's autocast computes the products of attention and feed-forward layers in bf16 or fp16.
The residual stream and the norms stay in fp32 by that; the feature encoder (on CPUs, see ``packed``), the projection
into the stream, the positional convolution and the head are held in fp32 here. On a CPU that leaves 84% of the
arithmetic of wav2vec2-large to bf16, and the quickstart's model chose another symbol in 22 of 42,550 frames; it was 89
with everything in bf16, 41 with the feature encoder too. What is still in doubt is computed again, see ``doubt``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

HELD = ("projection", "pos_conv_embed", "lm_head", "ctc_head")


class InFp32(nn.Module):
    """A part that autocast leaves alone."""

    def __init__(self, inner: nn.Module, device: str) -> None:
        super().__init__()
        self.inner, self.device = inner, device

    def forward(self, x: torch.Tensor, *more: Any, **named: Any) -> Any:
        with torch.autocast(self.device, enabled=False):
            return self.inner(x.float(), *more, **named)


def hold(model: nn.Module, device: str) -> None:
    """Wrap the parts of ``model`` that stay in fp32."""
    places = [(parent, name) for parent in model.modules() for name, _ in parent.named_children() if name in HELD]
    for parent, name in places:
        setattr(parent, name, InFp32(getattr(parent, name), device))


def held(model: nn.Module) -> frozenset[nn.Module]:
    """All that lies in wrapped parts."""
    return frozenset(part for module in model.modules() if isinstance(module, InFp32) for part in module.modules())


def autocast(device: str, dtype: torch.dtype) -> Any:
    """A context in which products are computed in ``dtype``; none for fp32."""
    return torch.autocast(device, dtype, enabled=dtype != torch.float32)
