"""What the inputs of a model's products range over, heard on calibration recordings, and the u8 steps for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from runner.asr.quantise.int8 import Step
from runner.asr.quantise.weights import products

KEPT = 8192  # activations kept of each product and window, evenly spaced: 32 windows of wav2vec2-large take 150 MB
SHARES = 46  # ranges tried: from a tenth of the widest to all of it


class Seen:
    """The inputs of one product: a fair sample of them, and the least and the largest of all."""

    def __init__(self) -> None:
        self._some: list[torch.Tensor] = []
        self.low = self.high = 0.0

    def add(self, x: torch.Tensor) -> None:
        flat = x.detach().flatten().float().cpu()
        self._some.append(flat[:: max(1, len(flat) // KEPT)].clone())
        self.low, self.high = min(self.low, float(flat.amin())), max(self.high, float(flat.amax()))

    def step(self) -> Step:
        """The one with the least squared error over the sample: a range that cuts what is very rare may be it."""
        values = torch.cat(self._some)
        ends = [share * max(-self.low, self.high) for share in torch.linspace(0.1, 1.0, SHARES).tolist()]
        tried = [_step(max(self.low, -end), min(self.high, end)) for end in ends]
        return min(tried, key=lambda step: _error(values, step))


def steps(model: nn.Module, hear: Callable[[Any], object], windows: Iterable[Any]) -> dict[str, Step]:
    """The step of each product's input, from what ``hear`` makes of ``windows``."""
    seen = {name: Seen() for name in products(model)}
    hooks = [
        product.register_forward_pre_hook(lambda _, inputs, to=seen[name]: to.add(inputs[0]))
        for name, product in products(model).items()
    ]
    try:
        for window in windows:
            hear(window)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: one.step() for name, one in seen.items() if one.high > one.low}


def _step(low: float, high: float) -> Step:
    """0 is met exactly."""
    scale = max((high - low) / 255, 1e-12)
    return Step(scale=scale, zero=min(255, max(0, round(-low / scale))))


def _error(values: torch.Tensor, step: Step) -> float:
    whole = torch.round(values / step.scale).add_(step.zero).clamp_(0, 255)
    return float(((whole - step.zero) * step.scale - values).square_().mean())
