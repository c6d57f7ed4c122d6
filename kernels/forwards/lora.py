"""PEFT's LoRA layers of linear ones, whose base and adapter become one operation: see `runner.kernels.lora`.

PEFT takes seconds to import and need not be installed: what needs it is imported where a model has such layers.
Layers that are given the same input are computed in one go. Of gate and up the MLP's forward sees to that, which is
ours. An attention's forward is transformers' own and calls q, k and v one after the other: there q computes all three,
and k and v take theirs when they are called with the very same tensor, before that forward ends.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from runner.kernels.places import Edit, Forward, Function, Request, UnfitError, forward, named

CLASSES = ("LoraLayer",)  # PEFT's, of which its layers are made
PATCH = "lora_linear"
TRIO = ("q_proj", "k_proj", "v_proj")  # in the order in which forwards call them


def linear(module: nn.Module, request: Request) -> list[Edit]:
    """A LoRA layer; what its adapters allow later (merging, switching off) is looked at in every call."""
    from runner.kernels import lora  # noqa: PLC0415 (see the module)

    if why := lora.refusal(module):
        raise UnfitError(why)

    def make(_module: nn.Module) -> Function:
        return lora.forward

    edit = forward(module, request, make)
    trio = _trio_of(module, request)
    if trio is None:
        return [edit]
    return [Edit(module=module, name=edit.name, value=Shared(module, make, request.patch, trio))]


def begin(model: nn.Module, _with_triton: bool | None) -> Callable[[], Callable[[], None]]:
    """What tells q, k and v that the attention they are of begins and ends, and gives its way back."""
    return partial(_watch, model)


def projected(x: Tensor, *modules: Any) -> tuple[Tensor, ...]:
    """`x` through each of `modules`: in one go where all of them have got the patch, so that x is read once."""
    replaced = [vars(module).get("forward") for module in modules]
    if not all(isinstance(one, Forward) and one.patch == PATCH for one in replaced):
        return tuple(module(x) for module in modules)
    from runner.kernels import lora  # noqa: PLC0415 (see the module)

    return lora.together(x, *modules)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Outputs for layers that are yet to be called."""

    x: Tensor
    state: tuple[Any, ...]
    outputs: dict[nn.Module, Tensor]


class Now(threading.local):
    """What holds of one thread while an attention runs in it."""

    running = False
    kept: Kept | None = None


class Trio:
    """q, k and v of one attention. Nothing is kept beyond a run of the attention, however it ends.

    On one core of a Xeon, fp32, 512 tokens of width 1024 (256 for k and v), rank 16, forward and backward: 38 ms, one
    by one 45; on an nf4 base 51 and 55. 8 tokens of width 64, where calls count most: 1.3 and 1.7.
    """

    def __init__(self, layers: tuple[nn.Module, ...]) -> None:
        self.layers = layers
        self.now = Now()

    def __deepcopy__(self, memo: dict[int, Any]) -> Trio:
        twin = memo[id(self)] = Trio(())
        twin.layers = tuple(copy.deepcopy(layer, memo) for layer in self.layers)
        return twin

    def start(self) -> None:
        self.now.running, self.now.kept = True, None

    def end(self) -> None:
        self.now.running, self.now.kept = False, None

    def output(self, layer: nn.Module, x: Tensor) -> Tensor | None:
        """Of one layer, where all are computed in one go; else None."""
        if layer is self.layers[0]:
            return self._all(x)
        kept = self.now.kept
        if kept is None or kept.x is not x or kept.state != _state(x):
            return None
        y = kept.outputs.pop(layer, None)
        if not kept.outputs:
            self.now.kept = None
        return y

    def _all(self, x: Tensor) -> Tensor | None:
        from runner.kernels import lora  # noqa: PLC0415 (see the module)

        self.now.kept = None
        outputs = lora.joined(x, *self.layers) if self.now.running else None
        if outputs is None:
            return None
        first, *others = outputs
        self.now.kept = Kept(x=x, state=_state(x), outputs=dict(zip(self.layers[1:], others, strict=True)))
        return first


class Shared(Forward):
    """The forward of one of a trio."""

    def __init__(self, module: nn.Module, make: Callable[[nn.Module], Function], patch: str, trio: Trio) -> None:
        super().__init__(module, make, patch)
        self.trio = trio

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        alone = torch.compiler.is_compiling() or len(args) != 1 or kwargs
        y = None if alone else self.trio.output(self.module, args[0])
        return super().__call__(*args, **kwargs) if y is None else y

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        return Shared(copy.deepcopy(self.module, memo), self.make, self.patch, copy.deepcopy(self.trio, memo))


def _state(x: Tensor) -> tuple[Any, ...]:
    """What an output depends on beside the layer and its input's identity."""
    kind = x.device.type
    version = None if x.is_inference() else x._version
    return version, torch.is_grad_enabled(), torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)


def _trio_of(module: nn.Module, request: Request) -> Trio | None:
    key = (PATCH, id(request.family))
    if key not in request.shared:
        request.shared[key] = {layer: trio for trio in _trios(request) for layer in trio.layers}
    found: Trio | None = request.shared[key].get(module)
    return found


def _trios(request: Request) -> Iterator[Trio]:
    """Of attentions of which the family knows that their q, k and v have one input: elsewhere k may be of another."""
    from runner.kernels import lora  # noqa: PLC0415 (see the module)

    for _, attention in named(request.model, request.family.places.get("attention", ())):
        layers = [layer for name in TRIO if (layer := attention._modules.get(name)) is not None]
        if len(layers) == len(TRIO) and all("forward" not in vars(x) and lora.refusal(x) is None for x in layers):
            yield Trio(tuple(layers))


def _watch(model: nn.Module) -> Callable[[], None]:
    handles: list[Any] = []
    for module in model.modules():
        if _trio_in(module) is not None:
            handles.append(module.register_forward_pre_hook(_start))
            handles.append(module.register_forward_hook(_end, always_call=True))  # after errors too

    def undo() -> None:
        for handle in handles:
            handle.remove()

    return undo


# They find the trio by the module, so that in a copied model they find the copy's.
def _start(module: nn.Module, _args: Any) -> None:
    # compiled code runs no hook after an error: there each goes on its own
    if not torch.compiler.is_compiling() and (trio := _trio_in(module)) is not None:
        trio.start()


def _end(module: nn.Module, _args: Any, _output: Any) -> None:
    if not torch.compiler.is_compiling() and (trio := _trio_in(module)) is not None:
        trio.end()


def _trio_in(attention: nn.Module) -> Trio | None:
    first = attention._modules.get(TRIO[0])
    held = None if first is None else vars(first).get("forward")
    return held.trio if isinstance(held, Shared) else None
