"""One way of computing something, tried: its values, its time and memory, its error against the same in fp64."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
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


@dataclass(kw_only=True)
class Seen:
    """What a module was given, and what came back."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    gradient: Tensor | None = None
    reached: bool = False  # by this batch: a tower for images is not by text


def run(module: nn.Module, given: Seen) -> Ran:
    """The module's first output, and its gradients by its first input and by what it trains; without dropout."""
    trained = [x for x in module.parameters() if x.requires_grad]
    training = [part for part in module.modules() if part.training]

    def once() -> list[Tensor]:
        leaf, args, kwargs = _leaf(given)
        output = module(*args, **kwargs)
        first = output[0] if isinstance(output, tuple) else output
        gradient = torch.ones_like(first) if given.gradient is None else given.gradient.to(first.dtype)
        found = torch.autograd.grad(first, [leaf, *trained], gradient, allow_unused=True)
        return [
            first.detach(),
            *(torch.zeros_like(x) if g is None else g for g, x in zip(found, [leaf, *trained], strict=True)),
        ]

    module.eval()
    try:
        return measured(once, _leaf(given)[0].device)
    finally:
        for part in training:
            part.training = True


def _leaf(given: Seen) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """The first floating input as a leaf, and all inputs with it in its place."""
    if given.args:
        leaf = given.args[0].detach().clone().requires_grad_()
        return leaf, (leaf, *given.args[1:]), given.kwargs
    name = next(key for key, x in given.kwargs.items() if isinstance(x, Tensor) and x.is_floating_point())
    leaf = given.kwargs[name].detach().clone().requires_grad_()
    return leaf, (), given.kwargs | {name: leaf}


def cast(value: Any, dtype: torch.dtype) -> Any:
    """The same with floating tensors in `dtype`, inside of tuples and dicts too."""
    if isinstance(value, Seen):
        fields = (cast(x, dtype) for x in (value.args, value.kwargs, value.gradient))
        return Seen(**dict(zip(("args", "kwargs", "gradient"), fields, strict=True)))
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(cast(x, dtype) for x in value)
    if isinstance(value, dict):
        return {key: cast(x, dtype) for key, x in value.items()}
    return value


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
    for part in twin.modules():
        config: Any = getattr(part, "config", None)
        if getattr(config, "_experts_implementation", None) is not None:
            config._experts_implementation = "eager"  # torch's grouped product takes no fp64
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
