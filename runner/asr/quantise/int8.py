"""Products in int8: u8 activations times s8 weights, summed exactly in int32, through oneDNN.

    y = s_x s_w (q_x - z) q_w^T + b,   s_w for each output, s_x and z for each frame (dynamic) or layer (static)

A frame's result depends on no other frame, and whole numbers add up to the same in any order: batches and threads
change no bit. Only for CPUs with VNNI or AMX instructions, see ``usable``: others add pairs of products in 16 bits,
which overflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.activations import GELUActivation

from runner.asr.onednn import bias_of
from runner.asr.quantise.rounding import Rounded
from runner.asr.quantise.weights import State, products

NOT_HERE = {"precision_why": "this device has no int8 products (VNNI, AMX): the int8 weights are turned back into fp32"}
ROWS = 500  # frames that oneDNN lays the weights out for; any number can be computed


def usable(device: str) -> bool:
    """Whether ``device`` multiplies int8 well and rightly."""
    has = torch.cpu.get_capabilities()
    fit = any(has.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))
    return device == "cpu" and fit and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, kw_only=True)
class Step:
    """How fp32 activations become u8: q = round(x / scale) + zero."""

    scale: float
    zero: int


class Last:
    """The activations that were turned into bytes last: query, key and value of a layer take the same."""

    def __init__(self) -> None:
        self._of: tuple[torch.Tensor, Step | None] | None = None
        self._made: tuple[torch.Tensor, torch.Tensor] | None = None

    def bytes_of(self, x: torch.Tensor, step: Step | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(u8 [frames, features], fp32 scale [frames, 1]); without a ``step`` each frame has its own, and zero 128."""
        if self._made is None or self._of is None or self._of[0] is not x or self._of[1] != step:
            rows = x.reshape(-1, x.shape[-1])
            self._of = (x, step)
            self._made = _by_frame(rows) if step is None else (_by_step(rows, step), torch.empty(0))
        return self._made


def _by_frame(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # two reductions and no copy: half the time of abs().amax()
    top = torch.maximum(rows.amax(dim=1, keepdim=True), -rows.amin(dim=1, keepdim=True))
    scale = top.div_(127).clamp_min_(1e-12)
    return _unsigned((rows / scale).round_()), scale


def _by_step(rows: torch.Tensor, step: Step) -> torch.Tensor:
    whole = torch.add(torch.tensor(step.zero - 128.0), rows, alpha=1 / step.scale)
    return _unsigned(whole.round_().clamp_(-128, 127))


def _unsigned(whole: torch.Tensor) -> torch.Tensor:
    """Whole numbers from -128 as bytes from 0. By way of int8: torch takes three times as long from fp32 to uint8."""
    return whole.to(torch.int8).view(torch.uint8).bitwise_xor_(128)


class _Product(nn.Module):
    def __init__(self, weight: Rounded, bias: torch.Tensor | None, last: Last) -> None:
        super().__init__()
        self.last = last
        self.scale = weight.scale
        self.zeros = torch.zeros(len(weight.scale), dtype=torch.int32)
        self.weight = torch.ops.onednn.qlinear_prepack(weight.values, [ROWS, weight.values.shape[1]])
        self.sums = weight.scale * weight.values.sum(dim=1, dtype=torch.int32)  # what a zero point adds, times it
        self.bias = torch.zeros_like(self.scale) if bias is None else bias.detach().clone()

    def _multiply(self, q: torch.Tensor, scale: float, bias: torch.Tensor, *, to: Step | None, gelu: bool) -> Any:
        """``bias`` has the zero point's share taken off, which is faster than to tell oneDNN of the zero point."""
        step, dtype = (Step(scale=1.0, zero=0), torch.float32) if to is None else (to, torch.uint8)
        after, how = ("gelu", "none") if gelu else ("none", "")
        return torch.ops.onednn.qlinear_pointwise(
            q, scale, 0, self.weight, self.scale, self.zeros, bias, step.scale, step.zero, dtype, after, [], how
        )


class DynamicProduct(_Product):
    """Each frame has a scale of its own, from its largest activation."""

    def __init__(self, weight: Rounded, bias: torch.Tensor | None, last: Last) -> None:
        super().__init__(weight, bias, last)
        self.shift = -128 * self.sums

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, scale = self.last.bytes_of(x, None)
        product = self._multiply(q, 1.0, self.shift, to=None, gelu=False)
        return torch.addcmul(self.bias, product, scale).view(*x.shape[:-1], -1)


class StaticProduct(_Product):
    """Scales come from calibration. ``to_step`` and ``gelu``: what follows in the layer is done within the product."""

    def __init__(self, weight: Rounded, bias: torch.Tensor | None, last: Last, *, step: Step) -> None:
        super().__init__(weight, bias, last)
        self.step = step
        self.shifted = self.bias - step.scale * step.zero * self.sums
        self.to_step: Step | None = None
        self.gelu = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = x.reshape(-1, x.shape[-1]) if x.dtype == torch.uint8 else self.last.bytes_of(x, self.step)[0]
        y: torch.Tensor = self._multiply(q, self.step.scale, self.shifted, to=self.to_step, gelu=self.gelu)
        return y.view(*x.shape[:-1], -1)


def use_dynamic(model: nn.Module, state: State) -> None:
    """Replace the products of ``model`` that ``state`` has in int8."""
    last = Last()
    for name, plain, weight in _replaceable(model, state):
        model.set_submodule(name, DynamicProduct(weight, bias_of(plain), last))


def use_static(model: nn.Module, state: State, steps: dict[str, Step]) -> None:
    """The same with the scales in ``steps``; a feed-forward layer hands bytes to its second product.

    A product that calibration never called has none and stays in fp32.
    """
    last = Last()
    for name, plain, weight in _replaceable(model, state):
        if name not in steps:
            continue
        model.set_submodule(name, StaticProduct(weight, bias_of(plain), last, step=steps[name]))
    for module in list(model.modules()):
        layers = [getattr(module, part, None) for part in ("intermediate_dense", "output_dense")]
        both = [layer for layer in layers if isinstance(layer, StaticProduct)]
        if len(both) == 2 and isinstance(getattr(module, "intermediate_act_fn", None), GELUActivation):
            both[0].to_step, both[0].gelu = both[1].step, True
            module.intermediate_act_fn = nn.Identity()


def _replaceable(model: nn.Module, state: State) -> list[tuple[str, nn.Linear, Rounded]]:
    """Those that are called; wavlm hands the weights of its attention to a function of torch."""
    found = []
    for name, plain in products(model).items():
        weight = state.get(f"{name}.weight")
        parent = model.get_submodule(name.rpartition(".")[0])
        if (
            isinstance(weight, Rounded)
            and weight.values.dtype == torch.int8
            and not hasattr(parent, "gru_rel_pos_const")
        ):
            found.append((name, plain, weight))
    return found
