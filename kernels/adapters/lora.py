"""PEFT's LoRA layers of linear ones, whose base and adapter become one operation: see `runner.kernels.lora`.

PEFT takes seconds to import and need not be installed: what needs it is imported where a model has such layers.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from runner.kernels.places import Edit, Forward, Function, Request, UnfitError, forward

CLASSES = ("LoraLayer",)  # PEFT's, of which its layers are made
PATCH = "lora_linear"


def linear(module: nn.Module, request: Request) -> list[Edit]:
    """A LoRA layer; what its adapters allow later (merging, switching off) is looked at in every call."""
    from runner.kernels import lora  # noqa: PLC0415 (see the module)

    if why := lora.refusal(module):
        raise UnfitError(why)

    def make(_module: nn.Module) -> Function:
        return lora.forward

    return [forward(module, request, make)]


def projected(x: Tensor, *modules: Any) -> tuple[Tensor, ...]:
    """`x` through each of `modules`: in one go where all of them have got the patch, so that x is read once."""
    replaced = [vars(module).get("forward") for module in modules]
    if not all(isinstance(one, Forward) and one.patch == PATCH for one in replaced):
        return tuple(module(x) for module in modules)
    from runner.kernels import lora  # noqa: PLC0415 (see the module)

    return lora.together(x, *modules)
