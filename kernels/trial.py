"""One way of computing something, tried: its values, its time and memory, its error against the same in fp64."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from runner.kernels.quantised import QuantisedLinear

TURNS = 3


@dataclass(frozen=True, kw_only=True)
class Ran:
    """Values and gradients of one way, and its cost."""

    values: list[Tensor]
    seconds: float
    bytes: int | None  # peak above what was held before, on GPUs


def measured(once: Callable[[], list[Tensor]], device: torch.device) -> Ran:
    """Values of `once` on `device`, the median of its times, and what it takes."""
    values, seconds, held = once(), [], None  # the first one compiles
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
    for _ in range(TURNS):
        seconds.append(_seconds(once, device))
    peak = None if held is None else torch.cuda.max_memory_allocated(device) - held
    return Ran(values=values, seconds=statistics.median(seconds), bytes=peak)


def _seconds(once: Callable[[], Any], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        once()
        return time.perf_counter() - start
    start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start_event.record()
    once()
    end_event.record()
    end_event.synchronize()
    return float(start_event.elapsed_time(end_event)) / 1000


def exact(module: nn.Module) -> nn.Module:
    """A copy in fp64, whose packed weights are plain ones of what they stand for."""
    twin = copy.deepcopy(module)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, QuantisedLinear):
                setattr(parent, name, _plain(child))
    return twin.double()


def _plain(layer: Any) -> nn.Linear:
    linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    linear.weight = nn.Parameter(layer.weight.dequantise(), requires_grad=False)
    linear.bias = layer.bias
    return linear


def error(value: Tensor, truth: Tensor) -> float:
    """Largest difference over the largest value of the truth; infinite where a value is not finite."""
    if not value.isfinite().all():
        return float("inf")
    largest = truth.abs().max().item() if truth.numel() else 0.0
    return (value.double() - truth).abs().max().item() / (largest or 1.0) if truth.numel() else 0.0
