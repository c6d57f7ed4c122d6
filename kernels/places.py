"""Where patches go: the data of a family, and what it takes to put a forward into one module and nothing else."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

Function = Callable[..., Any]


class UnfitError(Exception):
    """A module cannot take a patch; the text says what it would need."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Which modules of a model take which patch, by the names of their classes."""

    models: tuple[str, ...]  # classes that it is known by
    places: Mapping[str, tuple[str, ...]]  # patch -> classes of the modules that take it
    norm_offset: float = 0.0  # what RMS norms add to their weight
    softcap: str = ""  # config key of the cap on logits
    divisor: str = ""  # config key of what logits are divided by
    inner: bool = False  # the text model inside is of another family, which has the other places
    outside: str = ""  # component of the path under which no places lie: a tower for images with the same classes
    without: Mapping[str, str] = field(default_factory=dict)  # patches that such models never get, and why


def decoder(prefix: str, **changes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The usual places in the text models whose classes begin with `prefix`; a change to () takes one away."""
    usual = {
        "attention": (f"{prefix}Attention",),
        "rms_norm": (f"{prefix}RMSNorm",),
        "rope": (f"{prefix}Attention",),
        "swiglu": (f"{prefix}MLP",),
        "linear_cross_entropy": (f"{prefix}ForCausalLM",),
    }
    return {name: classes for name, classes in (usual | changes).items() if classes}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the maker of a forward is told beside the module."""

    patch: str
    model: nn.Module  # as a whole
    family: Family
    with_triton: bool | None
    shared: dict[Any, Any]  # what the places of one call share


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One attribute of one instance."""

    module: nn.Module
    name: str
    value: Any


class Forward:
    """A forward of one module in place of its class's own, made anew for a copy of the module.

    `make(module)` gives the function, which takes the module first. A deep copy of the model is patched like it, with
    its own weights. Pickled (`torch.save` of a whole model), it comes back as the class's own forward.
    """

    def __init__(self, module: nn.Module, make: Callable[[nn.Module], Function], patch: str) -> None:
        self.module, self.make, self.patch = module, make, patch
        self.function: Function | None = None  # of a copy it is made at the first call: before, it has nothing yet

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.function is None:
            self.function = self.make(self.module)
        return self.function(self.module, *args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(MethodType(type(self.module).forward, self.module))

    def __deepcopy__(self, memo: dict[int, Any]) -> Forward:
        return Forward(copy.deepcopy(self.module, memo), self.make, self.patch)

    def __reduce__(self) -> tuple[Any, ...]:
        return _own_forward, (self.module,)


def _own_forward(module: nn.Module) -> Function:
    return MethodType(type(module).forward, module)


def forward(module: nn.Module, request: Request, make: Callable[[nn.Module], Function]) -> Edit:
    """The edit that gives `module` another forward. Raises UnfitError where it has one already."""
    held = module.__dict__.get("forward")
    if isinstance(held, Forward):
        raise UnfitError(f"{held.patch} is in it already: undo that first")
    if held is not None:
        name = f"{getattr(held, '__module__', '?')}.{getattr(held, '__qualname__', type(held).__name__)}"
        raise UnfitError(f"its forward has been replaced already, by {name}: patch the model before that")
    value = Forward(module, make, request.patch)
    value.function = make(module)
    return Edit(module=module, name="forward", value=value)


def must_be_dense(module: nn.Module, name: str) -> Tensor:
    """The parameter `name`: a whole tensor with values, in a dtype that kernels take; else raises UnfitError."""
    tensor = getattr(module, name, None)
    if not isinstance(tensor, Tensor):
        raise UnfitError(f"it has no {name}")
    if type(tensor) not in {Tensor, nn.Parameter}:
        raise UnfitError(
            f"its {name} is a {type(tensor).__name__}: it takes a plain tensor, not one that is sharded or packed"
        )
    if tensor.is_meta or tensor.numel() == 0:
        raise UnfitError(f"its {name} has no values here: load the model before patching it")
    if not tensor.is_floating_point():
        raise UnfitError(f"its {name} is {tensor.dtype}: it takes floating numbers")
    return tensor


def must_agree(module: nn.Module, ours: Function, x: Tensor) -> None:
    """Hold `ours` against the forward of the module's class on `x`; raises UnfitError where they differ.

    Without dropout. 16 roundings of the dtype are allowed: another formula errs by the size of the values.
    """
    training = [part for part in module.modules() if part.training]
    try:
        module.eval()
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            mine, theirs = ours(module, x), type(module).forward(module, x)
    finally:
        for part in training:
            part.training = True
    error = (mine.double() - theirs.double()).abs().max() / theirs.double().abs().max().clamp(min=1e-30)
    if not error <= 16 * torch.finfo(x.dtype).eps:
        raise UnfitError(f"its forward computes something else ({error.item():.1e} apart): {_source(module)}")


def sample(rows: int, like: Tensor, features: int) -> Tensor:
    """Values between -2 and 2 in the dtype and on the device of `like`; draws no random numbers."""
    numbers = torch.arange(1, rows * features + 1, dtype=torch.float64)
    return (2 * torch.sin(numbers * numbers)).view(rows, features).to(like.device, like.dtype)


def named(model: nn.Module, classes: tuple[str, ...], outside: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Paths and modules of these classes or of classes made from them; none below a component `outside`."""
    for path, module in model.named_modules():
        known = any(cls.__name__ in classes for cls in type(module).__mro__)
        if known and not (outside and outside in path.split(".")):
            yield path, module


def _source(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
