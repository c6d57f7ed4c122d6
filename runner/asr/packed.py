"""Batches without padding for wav2vec2-like models: windows one behind another in a single row.

Linear layers, norms and activations treat each frame by itself, so they run over all frames at once; the convolutions
and attention run window by window. No padded frame is ever computed and no mask is needed, which makes a batch exact
also for models that padding disturbs (group norm; data2vec-audio, whose stacked positional convolutions let it in).

On CPUs moreover, with the share of time saved on wav2vec2-large (Cascade Lake, fp32, windows of 5 s):
  linear layers with weights laid out for oneDNN once, bias added inside: 13% of the encoder, 25% at windows of 2 s
  the positional convolution with its weight in that order too: half of its time, 43 ms a window
  the convolutions as such products over overlapping rows, features last: half of their time (no transposes around
  LayerNorm), in blocks of one second, which bounds their memory at any window length
and a window's output is the same to the last bit in any batch and at any number of threads: oneDNN's product of a row
does not depend on the rows beside it. MKL's does.

transformers' own forward does the rest, through its AttentionInterface. A model whose attention does not go through
it (wavlm) gets the convolutions only, on CPUs, and its windows one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from runner.asr.mixed import InFp32
from runner.asr.onednn import OneDnnLinear, PlainLinear, bias_of, use_onednn

FAMILIES = frozenset({"wav2vec2", "hubert", "data2vec-audio"})  # the same encoder, all through AttentionInterface
Linear = Callable[[torch.Tensor, torch.Tensor | None], nn.Module]
ATTENTION = "runner_by_window"
BLOCK_FRAMES = 50  # 1 s; 12 to 100 are within 5%
GPU_BLOCK_FRAMES = 1000  # starting a kernel costs more than its memory


@dataclass
class Lengths:
    """How the row at hand is made up; shared by the parts of one model, set before each forward."""

    samples: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)


class Packed:
    """A model changed for rows without padding. It can no longer be called with padded batches."""

    def __init__(self, model: Any, *, onednn: bool, dtype: torch.dtype = torch.float32) -> None:
        self._model = model
        self._lengths = Lengths()
        self.together = packable(model)
        base = model.base_model
        if onednn:  # they stay in fp32, see ``mixed``
            convolutions: nn.Module = InFp32(_convolutions(base.feature_extractor, _exact), "cpu")
        else:
            convolutions = _convolutions(base.feature_extractor, PlainLinear)
        base.feature_extractor = _ByWindow(convolutions, self._lengths)
        if self.together:
            _attend_by_window(model, self._lengths)
            if onednn:
                use_onednn(model, dtype)

    def __call__(self, windows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Logits of each window, [frames, vocab]. ``windows`` are normalised samples, [samples]."""
        rows = [list(windows)] if self.together else [[window] for window in windows]
        return [logits for row in rows for logits in self._row(row)]

    def _row(self, windows: list[torch.Tensor]) -> list[torch.Tensor]:
        self._lengths.samples = [len(window) for window in windows]
        row = torch.cat(windows).to(self._model.device, self._model.dtype)
        logits: torch.Tensor = self._model(row[None]).logits[0]
        return list(logits.split_with_sizes(self._lengths.frames))


def pack(model: Any, dtype: torch.dtype) -> Packed | None:
    """Change ``model``, or leave it as it is (None) where its parts are not known or nothing is gained."""
    base = model.base_model
    ours = type(model).__module__.startswith("transformers.")  # code that came with a model may look across windows
    known = ours and hasattr(base, "feature_extractor") and hasattr(base.feature_extractor, "conv_layers")
    shortened = getattr(model.config, "add_adapter", False)  # convolutions over frames after the encoder
    cpu = model.device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return Packed(model, onednn=cpu, dtype=dtype) if known and not shortened and (cpu or packable(model)) else None


def _exact(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    return OneDnnLinear(weight, bias, torch.float32)


def packable(model: Any) -> bool:
    """Whether all that looks beyond one frame is known and can be told where windows end."""
    return model.config.model_type in FAMILIES


def pads(model_type: str, *, device: str) -> bool:
    """Whether batches of such models are padded: on CPUs none are, see ``Acoustic``."""
    return device != "cpu" and model_type not in FAMILIES


def _attend_by_window(model: Any, lengths: Lengths) -> None:
    encoder = model.base_model.encoder
    encoder.pos_conv_embed = _FramesByWindow(encoder.pos_conv_embed, lengths)
    for module in model.modules():
        if hasattr(module, "is_causal") and hasattr(module, "q_proj"):
            module.runner_lengths = lengths
    AttentionInterface.register(ATTENTION, _attention_by_window)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.config._attn_implementation = ATTENTION


class _ByWindow(nn.Module):
    """The feature encoder, [1, samples] to [1, channels, frames]."""

    def __init__(self, convolutions: nn.Module, lengths: Lengths) -> None:
        super().__init__()
        self.convolutions = convolutions
        self.lengths = lengths

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        made = [self.convolutions(window) for window in row[0].split_with_sizes(self.lengths.samples)]
        self.lengths.frames = [len(frames) for frames in made]
        return torch.cat(made).T[None]


class _FramesByWindow(nn.Module):
    """The positional convolution, [1, frames, features] to the same."""

    def __init__(self, inner: nn.Module, lengths: Lengths) -> None:
        super().__init__()
        self.inner = inner
        self.lengths = lengths

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.inner(window) for window in row.split_with_sizes(self.lengths.frames, dim=1)], dim=1)


def _attention_by_window(  # noqa: PLR0917 (transformers calls it by position)
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention inside each window. Shapes [1, heads, frames, head_dim], out [1, frames, heads, head_dim]."""
    assert attention_mask is None, "a packed row has no padding to mask"
    frames = module.runner_lengths.frames
    windows = zip(*(x.split_with_sizes(frames, dim=2) for x in (query, key, value)), strict=True)
    made = [functional.scaled_dot_product_attention(q, k, v, scale=scaling).transpose(1, 2) for q, k, v in windows]
    return torch.cat(made, dim=1), None


def _convolutions(encoder: Any, linear: Linear) -> nn.Module:
    """The feature encoder for one window, [samples] to [frames, channels]."""
    layers = encoder.conv_layers
    by_frame = all(isinstance(getattr(layer, "layer_norm", None), nn.LayerNorm) for layer in layers)
    return _Blocks(layers, linear) if by_frame else _Whole(encoder)


class _Whole(nn.Module):
    """Group norm looks at the whole window, so there are no blocks."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.encoder(samples[None])[0].T
        return y


class _Blocks(nn.Module):
    """Convolutions with LayerNorm, whose frames depend on nothing but the samples they see."""

    def __init__(self, layers: Any, linear: Linear) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Convolution(layer, linear) for layer in layers)
        self.stride, self.receptive = 1, 1
        for layer in layers:
            self.receptive += (layer.conv.kernel_size[0] - 1) * self.stride
            self.stride *= layer.conv.stride[0]

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        frames = (len(samples) - self.receptive) // self.stride + 1
        made = []
        block = BLOCK_FRAMES if samples.device.type == "cpu" else GPU_BLOCK_FRAMES
        for first in range(0, frames, block):
            last = min(frames, first + block) - 1
            x = samples[first * self.stride : last * self.stride + self.receptive, None]
            for layer in self.layers:
                x = layer(x)
            made.append(x)
        return torch.cat(made)


class _Convolution(nn.Module):
    """y[t] = activation(norm(W x[t * stride : t * stride + kernel] + b)), [time, channels] to [time', channels']."""

    def __init__(self, layer: Any, linear: Linear) -> None:
        super().__init__()
        self.kernel, self.stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        weight = layer.conv.weight.detach().transpose(1, 2).flatten(1).contiguous()
        self.linear = linear(weight, bias_of(layer.conv))
        self.norm, self.activation = layer.layer_norm, layer.activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames, channels = (len(x) - self.kernel) // self.stride + 1, x.shape[1]
        rows = x.as_strided((frames, self.kernel * channels), (self.stride * channels, 1), x.storage_offset())
        y: torch.Tensor = self.activation(self.norm(self.linear(rows.contiguous())))
        return y
