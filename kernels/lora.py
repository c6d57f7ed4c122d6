"""PEFT's LoRA layers by way of `runner.kernels.ops.lora_linear`; quantised bases get a layer of their own.

PEFT keeps its names, files and switches. On a quantised base, `merge` puts a plain linear layer in its place, which is
exactly what was trained: the weight as it is dequantised, plus the change. Rounding the sum to the format again would
lose the most part of a small change. `unmerge` puts the quantised base back bit for bit, `merge_and_unload` leaves
plain layers, and who wants them quantised again says so (`quantise_linears`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import LoraConfig
from peft.tuners.lora.dora import DoraLinearLayer
from peft.tuners.lora.layer import Linear, LoraVariant
from peft.tuners.lora.variants import DoraLinearVariant
from torch import Tensor, nn

from runner.kernels.ops.lora_linear import lora_linear, lora_linears, row_norms
from runner.kernels.parts.frozen import Weight
from runner.kernels.quantised import QuantisedLinear

WITHOUT_THE_BASE = (True, False, "gaussian", "orthogonal", "eva")  # ways to begin that do not change the base


def registered(config: LoraConfig) -> LoraConfig:
    """The same `config`, with which PEFT makes a `LoraLinear` of every quantised layer that it targets.

    To load: ``PeftModel.from_pretrained(model, path, config=registered(LoraConfig.from_pretrained(path)))``.
    """
    config._register_custom_module({QuantisedLinear: LoraLinear})
    return config


def refusal(layer: nn.Module) -> str | None:
    """Why a layer of PEFT cannot take the kernel and keeps PEFT's own forward; None where it takes it."""
    if not isinstance(layer, Linear):
        return f"it is a {type(layer).__name__}, not a LoRA layer of a linear one"
    names = _active(layer)
    if len(names) != 1:
        return f"{len(names)} adapters are active"
    return next(_of_the_base(layer), None) or next(_of_the_adapter(layer, names[0]), None)


def _of_the_base(layer: Linear) -> Iterator[str]:
    base: Any = layer.base_layer
    if type(base) not in {nn.Linear, QuantisedLinear}:
        yield f"its base is a {type(base).__name__}"
    if _hooked(base):
        yield "hooks look at its base"
    if type(base) is nn.Linear and type(base.weight) not in {Tensor, nn.Parameter}:
        yield f"its weight is a {type(base.weight).__name__}"
    if type(base) is nn.Linear and base.weight.requires_grad:
        yield "its base is trained too"
    if layer.fan_in_fan_out:
        yield "its weight lies the other way round (fan_in_fan_out)"


def _of_the_adapter(layer: Linear, name: str) -> Iterator[str]:
    if layer.lora_bias[name]:
        yield "its adapter has a bias (lora_bias)"
    if name in layer.lora_variant and not isinstance(layer.lora_variant[name], DoraLinearVariant):
        yield f"it is {type(layer.lora_variant[name]).__name__}"
    if any(_hooked(part[name]) for part in (layer.lora_A, layer.lora_B, layer.lora_dropout)):
        yield "hooks look at its adapter"
    if not layer.cast_input_dtype_enabled:
        yield "the cast of its input is switched off"


def forward(layer: Linear, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """What PEFT's forward of `layer` gives, by the kernel where it can be had now.

    PEFT's own is taken where `refusal` says so, adapters are switched off or merged, or a batch mixes adapters.
    """
    if args or any(value is not None for value in kwargs.values()) or not _at_work(layer) or refusal(layer) is not None:
        y: Tensor = Linear.forward(layer, x, *args, **kwargs)
        return y
    name = _active(layer)[0]
    magnitude: Any = layer.lora_magnitude_vector[name].weight if name in layer.lora_variant else None
    weight, a_RK, b_NR, scale, bias = _parts(layer, name)
    return lora_linear(
        x, weight, a_RK, b_NR, scale=scale, bias=bias, magnitude_N=magnitude, dropout=_dropout(layer, name)
    )


def together(x: Tensor, *modules: nn.Module) -> tuple[Tensor, ...]:
    """`x` through each of `modules`, such as gate and up: as `joined` gives it, or each on its own."""
    outputs = joined(x, *modules)
    return tuple(module(x) for module in modules) if outputs is None else outputs


def joined(x: Tensor, *modules: nn.Module) -> tuple[Tensor, ...] | None:
    """`x` through each of `modules` in one go, where all are plain LoRA layers with the kernel, at which no hooks look.

    None where each must go on its own; also under dropout, which PEFT draws for each anew.
    """
    layers = [module for module in modules if isinstance(module, Linear) and _joins(module)]
    if len(layers) < len(modules):
        return None
    return lora_linears(x, [_parts(layer, _active(layer)[0]) for layer in layers])


class LoraLinear(Linear):
    """PEFT's LoRA layer of a `QuantisedLinear`. See the module about merging."""

    def __init__(self, base_layer: nn.Module, adapter_name: str, **kwargs: Any) -> None:
        self._quantised: tuple[QuantisedLinear, ...] = ()  # the base while it is merged; no submodule, so never saved
        with warnings.catch_warnings():  # PEFT says so of every layer that is not its own, and goes on
            warnings.filterwarnings("ignore", message="Unsupported layer type")
            super().__init__(base_layer, adapter_name, **kwargs)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return forward(self, x, *args, **kwargs)

    def update_layer(self, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        begin = getattr(kwargs.get("config"), "init_lora_weights", kwargs.get("init_lora_weights", True))
        if begin not in WITHOUT_THE_BASE:
            allowed = ", ".join(repr(word) for word in WITHOUT_THE_BASE)
            raise ValueError(f"init_lora_weights={begin!r} changes the base, which is quantised. It may be {allowed}.")
        super().update_layer(adapter_name, *args, **kwargs)

    def resolve_lora_variant(self, **kwargs: Any) -> LoraVariant | None:
        variant = super().resolve_lora_variant(**kwargs)
        if variant is None or type(variant) is DoraLinearVariant:
            return variant and _Dora()
        raise ValueError(f"{type(variant).__name__} cannot be had on a quantised base: plain LoRA and DoRA can.")

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        base = self.base_layer
        if isinstance(base, QuantisedLinear):
            self._quantised, self.base_layer = (base,), _dequantised(base)
        try:
            super().merge(safe_merge=safe_merge, adapter_names=adapter_names)
        finally:
            self._put_back()

    def unmerge(self) -> None:
        super().unmerge()
        self._put_back()

    def _put_back(self) -> None:
        if self._quantised and not self.merged:
            base: Any = self.base_layer
            self.base_layer, self._quantised = self._quantised[0].to(base.weight.device), ()

    @contextmanager
    def _unmerged_base_weight(self, safe_merge: bool = False) -> Iterator[Tensor]:
        """What DoRA's norms are taken of, also while other adapters are merged."""
        base: Any = self.base_layer
        weight = self._quantised[0].weight if self._quantised else base.weight
        yield weight.dequantise().to(base.weight.device)


class _Dora(DoraLinearVariant):
    """PEFT's DoRA, which begins and computes with a weight that is a parameter: here it is not."""

    @staticmethod
    def init(module: Any, adapter_name: str, **kwargs: Any) -> None:
        layer = _DoraLayer(fan_in_fan_out=False)
        weight, a_RK, b_NR, scale, _ = _parts(module, adapter_name)
        norms_N = row_norms(weight, a_RK.detach(), b_NR.detach(), scale, a_RK.dtype)
        layer.weight = nn.Parameter(norms_N.to(a_RK.dtype))
        module.lora_magnitude_vector[adapter_name] = layer


class _DoraLayer(DoraLinearLayer):
    """DoRA's part of PEFT's own forward."""

    def forward(self, x: Tensor, *, base_layer: QuantisedLinear, **kwargs: Any) -> Tensor:
        y: Tensor = super().forward(x, base_layer=_dequantised(base_layer), **kwargs)
        return y


def _dequantised(layer: QuantisedLinear) -> nn.Linear:
    base: Any = layer
    weight = layer.weight.dequantise()
    linear = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if base.bias is not None:
        linear.bias = nn.Parameter(base.bias.detach().clone(), requires_grad=base.bias.requires_grad)
    return linear.train(base.training)


def _active(layer: Linear) -> list[str]:
    return [name for name in layer.active_adapters if name in layer.lora_A]


def _at_work(layer: Linear) -> bool:
    return not (layer.disable_adapters or layer.merged)


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _dropout(layer: Linear, name: str) -> float:
    part = layer.lora_dropout[name]
    return float(part.p) if isinstance(part, nn.Dropout) and part.training else 0.0


def _parts(layer: Linear, name: str) -> tuple[Weight, Tensor, Tensor, float, Tensor | None]:
    base: Any = layer.base_layer
    down: Any = layer.lora_A[name]
    up: Any = layer.lora_B[name]
    return base.weight, down.weight, up.weight, layer.scaling[name], base.bias


def _joins(layer: Linear) -> bool:
    if refusal(layer) is not None or not _at_work(layer):
        return False
    name = _active(layer)[0]
    ahead, back = layer._forward_hooks or layer._forward_pre_hooks, layer._backward_hooks or layer._backward_pre_hooks
    hooked = bool(ahead or back)
    return not (hooked or name in layer.lora_variant or _dropout(layer, name))
