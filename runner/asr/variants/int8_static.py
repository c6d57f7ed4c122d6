"""`int8-static`: the encoder's products in int8, with scales of activations that were heard on calibration data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from runner.asr.pieces import Source
from runner.asr.quantise import int8, ranges, weights
from runner.asr.quantise.base import Base, Made, Opened
from runner.asr.quantise.int8 import Step
from runner.registry.variant import Variant

WHAT = "weights in int8; the encoder's products in int8 too, with scales from calibration; the rest in fp32"


@torch.inference_mode()
def quantise(base: Base, folder: Path) -> Made:
    """Hear the calibration data, and write the weights in int8."""
    name = base.model.main_input_name
    inputs = base.calibration()
    steps = ranges.steps(base.model, lambda x: base.model(**{name: x[None]}), inputs)
    weights.save(weights.rounded(base.model, "int8", group=base.group), folder)
    settings = {"inputs": len(inputs), "steps": {name: asdict(step) for name, step in steps.items()}}
    return Made(weights=[weights.FILE], format="quantised", settings=settings)


def load(variant: Variant, source: Source, *, device: str) -> Opened:
    """The model with int8 products, or with the same weights in fp32 where ``device`` has none."""
    state = weights.read(Path(source.folder))
    model = weights.model_of(state, source)
    if not int8.usable(device):
        return Opened(model=model, source=source, about=int8.NOT_HERE)
    int8.use_static(model, state, {name: Step(**step) for name, step in variant.settings["steps"].items()})
    return Opened(model=model, source=source, settled=True, about={"precision": "int8", "precision_why": WHAT})
