"""Quantised weights, and linear layers that hold one.

A format is a module of `runner.kernels.formats`, where its formula and its source stand. Shapes: N outputs, K inputs.

A model is kept in one file of safetensors: its state dict, with the parts of quantised weights under names of their own
and as they are; and in the file's metadata under `quantised` JSON: {layer: {"format": "nf4", "shape": [N, K], "dtype":
"bfloat16"}}. `model.save_pretrained` keeps the same tensors, but not that JSON, without which they mean nothing.
"""

from __future__ import annotations

import json
import math
import operator
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from runner.kernels import formats
from runner.kernels.launch import divide_up, jit, launch, power_of_two, tl, use_triton

# heads, what chooses experts, and towers for images with what joins them to the text: as the registry counts them
IMAGES = ("visual", "vision_tower", "vision_model", "multi_modal_projector")
SKIPPED = ("lm_head", "embed_out", "score", "classifier", "pooler", "gate", "router", *IMAGES)
DTYPES = {str(one).split(".")[1]: one for one in (torch.float32, torch.bfloat16, torch.float16, torch.float64)}


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantisedWeight:
    """A weight [N, K] in a format. Raises ValueError where parts are not those of the format at that shape."""

    format: str  # a name of runner.kernels.formats
    shape: tuple[int, int]  # N, K
    dtype: torch.dtype  # that it dequantises to, unless another is asked for
    parts: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        expected = formats.load(self.format).layout(*self.shape)
        found = {name: (part.dtype, tuple(part.shape)) for name, part in self.parts.items()}
        if found != dict(expected):
            raise ValueError(f"Parts of {self.format!r} for {self.shape} must be {dict(expected)}, got {found}.")

    @property
    def device(self) -> torch.device:
        """Where its parts lie."""
        return self.parts["codes"].device

    @property
    def nbytes(self) -> int:
        """Bytes of its parts, which are those of the file too."""
        return sum(part.nbytes for part in self.parts.values())

    def to(self, device: torch.device | str) -> QuantisedWeight:
        """The same on another device."""
        return replace(self, parts={name: part.to(device) for name, part in self.parts.items()})

    def operands(self) -> tuple[Tensor, ...]:
        """Five tensors: the first arguments of the format's `decode`."""
        return formats.load(self.format).operands(self.parts)

    def dequantise(self, dtype: torch.dtype | None = None, with_triton: bool | None = None) -> Tensor:
        """The weight [N, K] that the parts stand for; one launch on a GPU. No gradient flows."""
        dtype = self.dtype if dtype is None else dtype
        if not use_triton(torch.empty(0, dtype=dtype, device=self.device), with_triton):
            return reference(self, dtype)
        rows, columns = self.shape
        weight_NK = torch.empty(self.shape, dtype=dtype, device=self.device)
        wide = max(16, min(power_of_two(columns), 256))
        high = 4096 // wide
        options = {"DECODE": formats.load(self.format).decode, "BLOCK_N": min(high, 64), "BLOCK_K": wide}
        programs = (divide_up(rows, min(high, 64)), divide_up(columns, wide))
        # without fused products and sums: the bits are the reference's
        fixed = {"num_warps": 4, "enable_fp_fusion": False}
        launch(_dequantise_kernel, programs, *self.operands(), weight_NK, rows, columns, **options, **fixed)
        return weight_NK


def reference(weight: QuantisedWeight, dtype: torch.dtype | None = None) -> Tensor:
    """The weight [N, K] in plain torch: values are computed in fp32, then rounded to the dtype."""
    dtype = weight.dtype if dtype is None else dtype
    return formats.load(weight.format).reference(weight.parts, weight.shape, dtype)


@torch.no_grad()
def quantise(weight_NK: Tensor, format: str) -> QuantisedWeight:  # noqa: A002 a file's and a spec's word too
    """The weight in that format, on its device. Raises ValueError for what is no matrix of finite numbers."""
    chosen = formats.load(format)
    if weight_NK.ndim != 2 or weight_NK.numel() == 0 or not weight_NK.is_floating_point():
        raise ValueError(f"Only a matrix of floats is quantised, got {weight_NK.dtype} of {tuple(weight_NK.shape)}.")
    if not weight_NK.isfinite().all():
        raise ValueError("The weight holds NaN or infinite values, which no format can hold: mend the checkpoint.")
    rows, columns = weight_NK.shape
    parts = chosen.quantise(weight_NK)
    return QuantisedWeight(format=format, shape=(rows, columns), dtype=weight_NK.dtype, parts=parts)


def size(format: str, shape: tuple[int, int]) -> int:  # noqa: A002
    """Bytes of a weight [N, K] in that format: in memory, and in a file of safetensors beside its header."""
    parts = formats.load(format).layout(*shape).values()
    return sum(dtype.itemsize * math.prod(sizes) for dtype, sizes in parts)


@jit
def _dequantise_kernel(
    a_ptr,
    b_ptr,
    c_ptr,
    d_ptr,
    e_ptr,
    out_ptr,
    rows,
    columns,
    DECODE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    start = tl.program_id(1) * BLOCK_K
    tile = DECODE(a_ptr, b_ptr, c_ptr, d_ptr, e_ptr, row, row < rows, start, columns, BLOCK_N, BLOCK_K)
    column = start + tl.arange(0, BLOCK_K)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(out_ptr + row[:, None] * columns + column[None, :], tile.to(out_ptr.dtype.element_ty), mask=inside)


class QuantisedLinear(nn.Module):
    """y = x W^T + b with a quantised W, which is not trained; neither it nor its gradient is kept for backward.

    Its parts are buffers, held as bytes, which no cast of the model changes (it changes what they dequantise to) and
    every backend of torch.distributed can send. In a state dict they have their own dtypes: `NAME.codes`, `NAME.scales`
    and so on, as the format lists them, and `NAME.bias`. DistributedDataParallel sends buffers in every forward pass
    unless it is told ``broadcast_buffers=False``.
    """

    def __init__(self, weight: QuantisedWeight, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.format, self.dtype = weight.format, weight.dtype
        self.out_features, self.in_features = weight.shape
        for name, part in weight.parts.items():
            self.register_buffer(name, part.contiguous().view(torch.uint8))
        self.register_parameter("bias", bias)
        self._known: tuple[tuple[Any, ...], QuantisedWeight] | None = None  # buffers, and the weight that they are

    @classmethod
    def from_linear(cls, linear: nn.Linear, format: str) -> QuantisedLinear:  # noqa: A002
        """A layer that stands for `linear`, whose bias it shares. Raises ValueError as `quantise`."""
        return cls(quantise(linear.weight, format), linear.bias).train(linear.training)

    @classmethod
    def empty(
        cls,
        format: str,  # noqa: A002
        shape: tuple[int, int],
        *,
        dtype: torch.dtype,
        bias: nn.Parameter | None = None,
        device: torch.device | str = "cpu",
    ) -> QuantisedLinear:
        """A layer of zeros, for a state dict to fill."""
        layout = formats.load(format).layout(*shape)
        parts = {name: torch.zeros(sizes, dtype=kind, device=device) for name, (kind, sizes) in layout.items()}
        return cls(QuantisedWeight(format=format, shape=shape, dtype=dtype, parts=parts), bias)

    @property
    def weight(self) -> QuantisedWeight:
        """The weight; it has shape, dtype and device as a tensor has."""
        held, known = (*self._buffers.values(), self.dtype), self._known
        if known is None or not all(map(operator.is_, known[0], held)):  # to make it anew takes ten times as long
            parts = {name: self.get_buffer(name).view(kind) for name, (kind, _) in self._layout().items()}
            shape = (self.out_features, self.in_features)
            weight = QuantisedWeight(format=self.format, shape=shape, dtype=self.dtype, parts=parts)
            self._known = known = (held, weight)
        return known[1]

    def forward(self, x: Tensor) -> Tensor:
        """x [..., K] -> [..., N] in x's dtype, or autocast's."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        bias = None if self.bias is None else self.bias.to(x.dtype)
        # shaped outside: what a Function gives as a view may not be changed in place, which PEFT's mixed batches do
        y_MN: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), bias, self.weight)
        return y_MN.view(*x.shape[:-1], self.out_features)

    def __getstate__(self) -> dict[str, Any]:
        """Without the views of its buffers in other dtypes, which torch.save refuses beside them."""
        return self.__dict__ | {"_known": None}

    def extra_repr(self) -> str:
        """What `print(model)` says of it."""
        features = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{features}, bias={self.bias is not None}, format={self.format!r}"

    def _layout(self) -> formats.Layout:
        return formats.load(self.format).layout(self.out_features, self.in_features)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantisedLinear:
        """As torch does `.to()` and its like: bytes are moved and not cast."""
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.weight.device)).dtype
        super()._apply(fn, recurse)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: part for name, part in self.weight.parts.items()})

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, *messages: list[str]
    ) -> None:
        for name, (kind, _) in self._layout().items():
            part = state_dict.get(prefix + name)
            if part is not None and part.dtype == kind:
                state_dict[prefix + name] = part.contiguous().view(torch.uint8)  # in the copy that torch passes around
            elif part is not None:
                messages[-1].append(f"{prefix + name} must be {kind}, got {part.dtype}: it was cast on its way")
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *messages)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, weight: QuantisedWeight) -> Tensor:
        ctx.weight = weight
        return nn.functional.linear(x, weight.dequantise(x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dx = dy @ ctx.weight.dequantise(dy.dtype) if ctx.needs_input_grad[0] else None
        dbias = dy.reshape(-1, dy.shape[-1]).sum(0) if ctx.needs_input_grad[1] else None
        return dx, dbias, None


def quantise_linears(model: nn.Module, format: str, skip: Collection[str] = SKIPPED) -> list[str]:  # noqa: A002
    """Put a QuantisedLinear in the place of every nn.Linear of `model`, one at a time, in place; their names.

    What has a word of `skip` between the dots of its name stays, and so does a weight that another module shares, and
    a subclass of nn.Linear. Raises ValueError where nothing is left to quantise.
    """
    used = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    found = [
        name
        for name, module in model.named_modules()
        if name and type(module) is nn.Linear and not set(name.split(".")) & set(skip) and used[id(module.weight)] == 1
    ]
    if not found:
        raise ValueError(f"No linear layer of {type(model).__name__} is left to quantise; skipped are {sorted(skip)}.")
    for name in found:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        model.set_submodule(name, QuantisedLinear.from_linear(linear, format))
    return found


def save_quantised(model: nn.Module, path: Path) -> None:
    """Write `model` to one file of safetensors, bit for bit; weights that modules share are written once."""
    layers = {
        name: {"format": module.format, "shape": list(module.weight.shape), "dtype": str(module.dtype).split(".")[1]}
        for name, module in model.named_modules()
        if isinstance(module, QuantisedLinear)
    }
    save_model(model, str(path), metadata={"format": "pt", "quantised": json.dumps(layers, sort_keys=True)})


def load_quantised(model: nn.Module, path: Path) -> None:
    """Fill `model`, not quantised and of the same architecture, from a file that `save_quantised` wrote, in place.

    Its linear layers become those of the file; all else keeps the model's dtype. Raises ValueError where the file names
    layers that the model does not have, tells of none at all, or says of one what makes no sense.
    """
    if empty := next((name for name, x in model.named_parameters() if x.is_meta), None):
        raise ValueError(f"{empty!r} lies on the meta device and cannot be filled: make the model on a real one.")
    with safe_open(path, "pt") as file:
        said = (file.metadata() or {}).get("quantised")
    if said is None:
        raise ValueError(f"{str(path)!r} does not say how it is quantised: it was not written by save_quantised.")
    try:
        stored = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} says how it is quantised in what is no JSON: {error}") from error
    if not isinstance(stored, dict):
        raise ValueError(f"{str(path)!r} must name its quantised layers in a mapping, got {stored!r:.80}.")
    layers = {name: _empty(model, name, word, path) for name, word in stored.items()}
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    load_model(model, path)


def _empty(model: nn.Module, name: str, word: Any, path: Path) -> QuantisedLinear:
    """The layer, still to be filled, that takes the place of the linear one of that name."""
    match word:
        case {"format": str(kind), "shape": [int(rows), int(columns)], "dtype": str(dtype)} if (
            kind in formats.names() and dtype in DTYPES
        ):
            shape = (rows, columns)
        case _:
            allowed = f"format ({', '.join(formats.names())}), shape [N, K] and dtype ({', '.join(DTYPES)})"
            raise ValueError(f"{str(path)!r} must say of its layer {name!r} {allowed}, got {word!r:.120}.")
    linear = dict(model.named_modules()).get(name)
    if not name or not isinstance(linear, nn.Linear) or tuple(linear.weight.shape) != shape:
        raise ValueError(f"{str(path)!r} has a linear layer {name!r} of {shape}; the model has {linear!r} there.")
    layer = QuantisedLinear.empty(kind, shape, dtype=DTYPES[dtype], bias=linear.bias, device=linear.weight.device)
    return layer.train(linear.training)
