"""`bf16`: weights of 16 bits as transformers saves them; computed in `bf16` where the device does that natively."""

from __future__ import annotations

from pathlib import Path

import torch

from runner.asr.pieces import Source
from runner.asr.quantise import half
from runner.asr.quantise.base import Base, Made, Opened
from runner.registry.variant import Variant

WHAT = "weights in bf16; computed as `precision` asks, on CPUs without bf16 in fp32"


def quantise(base: Base, folder: Path) -> Made:
    """Write the weights in bf16."""
    return half.save(base.model, folder, torch.bfloat16)


def load(variant: Variant, source: Source, *, device: str) -> Opened:
    """The model, in fp32 for `Acoustic` to go on from."""
    return half.load(source)
