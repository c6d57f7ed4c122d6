"""Quantise linear layers while a model loads: each is read, rounded and let go before the next.

It goes through transformers' own seam for that, `HfQuantizer`, so that its renaming and merging of a checkpoint's
tensors stay in force; afterwards nothing of it is left in the model but the layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from transformers.core_model_loading import ConversionOps
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from runner.kernels.quantised import SKIPPED, QuantisedLinear, QuantisedWeight, quantise, size

METHOD = "runner"
COMPLAINTS: list[str] = []  # of the load that goes on: transformers says only that something went wrong


@register_quantization_config(METHOD)
class RunnerConfig(QuantizationConfigMixin):  # type: ignore[misc]  # transformers is not typed
    """The format that linear layers are loaded in."""

    def __init__(self, format: str = "nf4", **_: Any) -> None:  # noqa: A002 (the kernels' word)
        self.quant_method = METHOD
        self.format = format


@register_quantizer(METHOD)
class RunnerQuantizer(HfQuantizer):  # type: ignore[misc]  # transformers is not typed
    """Puts a QuantisedLinear in the place of each linear layer whose weight arrives."""

    is_trainable = False

    def __init__(self, quantization_config: RunnerConfig, **given: Any) -> None:
        super().__init__(quantization_config, **{**given, "pre_quantized": False})
        self.layers: frozenset[str] = frozenset()

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        self.layers = frozenset(_linears(model))

    def param_needs_quantization(self, model: Any, param_name: str, **_: Any) -> bool:
        """Whether it is the weight of such a layer."""
        return param_name.endswith(".weight") and param_name.removesuffix(".weight") in self.layers

    def param_element_size(self, model: Any, param_name: str, param: Tensor) -> float:
        """Bytes of one value, by which transformers reserves memory on a GPU."""
        if self.param_needs_quantization(model, param_name):
            return size(self.quantization_config.format, (param.shape[0], param.shape[1])) / param.numel()
        return float(param.element_size())

    def get_quantize_ops(self) -> ConversionOps:
        """What is done with a weight that has arrived."""
        return Quantise(self)

    def is_serializable(self) -> bool:
        """Never: the model is kept through its adapter."""
        return False


class Quantise(ConversionOps):  # type: ignore[misc]  # transformers is not typed
    """One weight, rounded into its layer's place; nothing is left for transformers to set."""

    def __init__(self, quantizer: RunnerQuantizer) -> None:
        self.quantizer = quantizer

    def convert(
        self, input_dict: dict[str, Any], *, model: Any, missing_keys: set[str] | None = None, **_: Any
    ) -> dict[str, Any]:
        """The weights among ``input_dict`` that are not for us."""
        rest = {}
        for name, value in input_dict.items():
            weight = value[0] if isinstance(value, list) else value
            if not self.quantizer.param_needs_quantization(model, name):
                rest[name] = value
                continue
            path = name.rpartition(".")[0]
            linear = model.get_submodule(path)
            layer = QuantisedLinear(self._quantised(weight, path), linear.bias)
            model.set_submodule(path, layer.train(linear.training))
            if missing_keys is not None:
                missing_keys.discard(name)
        return rest

    def _quantised(self, weight: Tensor, path: str) -> QuantisedWeight:
        try:
            return quantise(weight, self.quantizer.quantization_config.format)
        except ValueError as error:
            COMPLAINTS.append(f"{path!r}: {error}")
            raise


def _linears(model: nn.Module) -> Iterator[str]:
    """Those that `quantise_linears` would take."""
    for name, module in model.named_modules():
        if name and type(module) is nn.Linear and not set(name.split(".")) & set(SKIPPED):
            yield name
