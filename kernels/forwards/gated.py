"""The gated MLPs: act(gate) * up in one kernel, whether gate and up are two projections or the halves of one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from runner.kernels.forwards.lora import projected
from runner.kernels.ops.geglu import geglu
from runner.kernels.ops.swiglu import swiglu
from runner.kernels.places import Edit, Function, Request, UnfitError, forward, must_agree, sample

ACTIVATIONS = ("act_fn", "activation_fn", "act")  # attribute that holds it
# projection whose halves are gate and up -> projection out. Phi-3's first half is the gate, and so is ModernBERT's
FUSED = {"gate_up_proj": "down_proj", "Wi": "Wo"}
KNOWN: Mapping[str, Function] = {
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "gelu by tanh": partial(nn.functional.gelu, approximate="tanh"),
}


def swi(module: nn.Module, request: Request) -> list[Edit]:
    """An MLP that gates with silu."""
    _must_be(module, {"silu"})
    return _edits(module, request, partial(swiglu, with_triton=request.with_triton))


def ge(module: nn.Module, request: Request) -> list[Edit]:
    """An MLP that gates with gelu, exact or by tanh."""
    tanh = _must_be(module, {"gelu", "gelu by tanh"}) == "gelu by tanh"
    return _edits(module, request, partial(geglu, tanh=tanh, with_triton=request.with_triton))


def _must_be(module: nn.Module, wanted: set[str]) -> str:
    """The name of the module's activation, found by what it does."""
    name = next((name for name in ACTIVATIONS if callable(getattr(module, name, None))), None)
    if name is None:
        raise UnfitError(f"it has none of {', '.join(ACTIVATIONS)}")
    x = torch.linspace(-40, 40, 321)  # far out too, where gelu_10 is cut off
    with torch.no_grad():
        y = getattr(module, name)(x)
    found = next((word for word, known in KNOWN.items() if torch.allclose(y, known(x), rtol=1e-5, atol=1e-6)), None)
    if found not in wanted:
        raise UnfitError(
            f"its activation is {found or type(getattr(module, name)).__name__}, not {' or '.join(sorted(wanted))}"
        )
    return str(found)


def _edits(module: nn.Module, request: Request, product: Function) -> list[Edit]:
    made = _separate(product) if hasattr(module, "gate_proj") else _fused(module, product)

    def make(_module: nn.Module) -> Function:
        return made

    if (first := type(module)) not in request.shared:  # all of a class compute the same: one is enough
        must_agree(module, made, _input(module))
        request.shared[first] = True
    return [forward(module, request, make)]


def _input(module: nn.Module) -> Tensor:
    """What its projections take, in the dtype of what is not packed in them."""
    linear: Any = next(part for part in module.modules() if hasattr(part, "in_features"))
    weight = next((x for x in module.parameters() if x.is_floating_point()), None)
    if weight is None:
        raise UnfitError("none of its parameters is floating")
    if weight.is_meta:
        raise UnfitError("its weights have no values here: load the model before patching it")
    return sample(2, weight, int(linear.in_features))


def _separate(product: Function) -> Function:
    def gated(self: Any, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(product(*projected(x, self.gate_proj, self.up_proj)))
        return y

    return gated


def _fused(module: nn.Module, product: Function) -> Function:
    name = next((name for name in FUSED if hasattr(module, name)), None)
    if name is None:
        raise UnfitError(f"it has neither gate_proj and up_proj nor one of {', '.join(FUSED)}")
    into, out = name, FUSED[name]

    def gated(self: Any, x: Tensor) -> Tensor:
        gate, up = getattr(self, into)(x).chunk(2, dim=-1)
        y = product(gate, up)
        if hasattr(self, "drop"):
            y = self.drop(y)
        projected: Tensor = getattr(self, out)(y)
        return projected

    return gated
