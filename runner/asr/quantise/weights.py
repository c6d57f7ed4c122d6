"""The storage of variants in whole numbers: a safetensors file with the names of the model's own state.

A rounded weight lies there as int8, or as pairs of int4 in uint8, its scales beside it as `<name>.scale`; all else is
fp16, or fp32 where that is too narrow. Products of the encoder's layers take nearly all of the room; convolutions count
too (13 M of wav2vec2-large's 315 M weights, a fifth of the quickstart's model).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import MODEL_FOR_CTC_MAPPING, AutoConfig
from transformers.utils import logging as transformers_logging

from runner.asr.pieces import Source
from runner.asr.quantise import rounding
from runner.asr.quantise.rounding import Rounded
from runner.schema.errors import JobError

FILE = "quantised.safetensors"
SCALE = ".scale"
FEW = 4096  # weights: less than that saves nothing worth the rounding
# never in int4: the head, and the convolution after the first. That one, 0.8 M of wav2vec2-large's weights, costs the
# quickstart's first model 0.9 points of WER in int4, all other convolutions together none (200 held-out sentences)
SENSITIVE = ("lm_head.", "ctc_head.", "conv_layers.1.")
Bits = Literal["int8", "int4"]
State = dict[str, torch.Tensor | Rounded]


def products(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers inside the encoder's layers, by name."""
    found = ((name, module) for name, module in model.named_modules() if ".layers." in name)
    return {name: module for name, module in found if isinstance(module, nn.Linear)}


def rounded(model: nn.Module, bits: Bits, *, group: int) -> State:
    """The model's state with its matrices rounded to ``bits``, convolutions too.

    Not rounded are vectors, what is small, and convolutions that see a single channel: the first one hears samples of
    16 bits, depthwise ones have few weights. ``SENSITIVE`` ones, and rows that ``group`` does not divide, go to int8.
    """
    state: State = {}
    for name, weight in model.state_dict().items():
        if not _roundable(weight):
            state[name] = _narrow(weight)
        elif bits == "int4" and _divides(group, weight) and not any(part in name for part in SENSITIVE):
            state[name] = rounding.int4(weight, group=group)
        else:
            state[name] = rounding.int8(weight)
    return state


def _roundable(weight: torch.Tensor) -> bool:
    matrix = weight.is_floating_point() and weight.ndim > 1 and weight.numel() >= FEW
    return matrix and not (weight.ndim > 2 and weight.shape[1] == 1)


def _divides(group: int, weight: torch.Tensor) -> bool:
    return weight[0].numel() % group == 0 and weight.shape[1] % 2 == 0


def _narrow(weight: torch.Tensor) -> torch.Tensor:
    if not weight.is_floating_point():
        return weight
    half = weight.half()
    return half if torch.isfinite(half).all() else weight.float()


def save(state: State, folder: Path) -> None:
    """Write ``state`` into ``folder``."""
    tensors: dict[str, torch.Tensor] = {}
    for name, entry in state.items():
        if isinstance(entry, Rounded):
            tensors |= {name: entry.values.contiguous(), name + SCALE: entry.scale.contiguous()}
        else:
            tensors[name] = entry.detach().contiguous()
    save_file(tensors, folder / FILE, metadata={"format": "pt"})


def read(folder: Path) -> State:
    """What ``save`` wrote."""
    tensors = load_file(folder / FILE)
    names = [name for name in tensors if not (name.endswith(SCALE) and name.removesuffix(SCALE) in tensors)]
    scales = {name: tensors[name + SCALE] for name in names if name + SCALE in tensors}
    return {n: Rounded(values=tensors[n], scale=scales[n]) if n in scales else tensors[n] for n in names}


def model_of(state: State, source: Source) -> Any:
    """A transformers model in fp32 with the weights that ``state`` stands for. Raises JobError (ModelInvalid)."""
    transformers_logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(source.folder, local_files_only=True)
    exact = {name: _exact(entry) for name, entry in state.items()}
    kind = MODEL_FOR_CTC_MAPPING[type(config)]
    model, found = kind.from_pretrained(
        None, config=config, state_dict=exact, dtype=torch.float32, output_loading_info=True
    )
    wrong = sorted({*found["missing_keys"], *found["unexpected_keys"]})
    if wrong or found["mismatched_keys"]:
        name = wrong[0] if wrong else str(found["mismatched_keys"])
        raise JobError(f"{source.folder}: {FILE} does not fit config.json, see {name!r}", failure="ModelInvalid")
    return model


def _exact(entry: torch.Tensor | Rounded) -> torch.Tensor:
    if isinstance(entry, Rounded):
        return entry.exact()
    return entry.float() if entry.is_floating_point() else entry
