"""What the inputs of a model's products range over, heard on calibration recordings, and the u8 steps for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from runner.asr.quantise.int8 import Step
from runner.asr.quantise.weights import products

# Sizes are counted in bins of 2%, from 2^-24 to 2^24. A sample would do with fewer counts, but one of even steps meets
# the same features in every frame, and a feature much wider than the others would be cut off
BINS, LEAST, OCTAVES = 32, -24, 48  # bins of an octave, the exponent of the least size
SIZES = torch.exp2((torch.arange(BINS * OCTAVES, dtype=torch.float64) + 0.5) / BINS + LEAST).float()
SHARES = 46  # ranges tried: from a tenth of the widest to all of it


class Seen:
    """The inputs of one product: how often each size was met, and the least and the largest value."""

    def __init__(self) -> None:
        self._counts = torch.zeros(2, len(SIZES), dtype=torch.int64)  # of values above 0, and below
        self.low = self.high = 0.0

    def add(self, x: torch.Tensor) -> None:
        flat = x.detach().flatten().float().cpu()
        for row, part in enumerate((flat[flat > 0], -flat[flat < 0])):
            at = ((part.log2() - LEAST) * BINS).clamp_(0, len(SIZES) - 1).long()
            self._counts[row] += torch.bincount(at, minlength=len(SIZES))
        self.low, self.high = min(self.low, float(flat.amin())), max(self.high, float(flat.amax()))

    def step(self) -> Step:
        """The one with the least squared error: a range that cuts what is very rare may be it."""
        values, counts = torch.cat((SIZES, -SIZES)), self._counts.flatten()
        met = counts > 0
        ends = [share * max(-self.low, self.high) for share in torch.linspace(0.1, 1.0, SHARES).tolist()]
        tried = [_step(max(self.low, -end), min(self.high, end)) for end in ends]
        return min(tried, key=lambda step: _error(values[met], counts[met], step))


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


def _error(values: torch.Tensor, counts: torch.Tensor, step: Step) -> float:
    whole = torch.round(values / step.scale).add_(step.zero).clamp_(0, 255)
    return float(((whole - step.zero) * step.scale - values).square_() @ counts.float())
