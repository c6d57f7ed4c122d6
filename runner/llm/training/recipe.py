"""How a model is trained, in plain values: what decides the weights, beside the model and the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The learning rate over the run: a ramp, then a fall to ``floor`` of the highest; shares of all steps."""

    highest: float
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    warmup: float = 0.03
    floor: float = 0.1

    def share_at(self, step: int, *, steps: int) -> float:
        """Share of the highest rate at ``step`` of ``steps``, counted from 0. The first is above 0: it learns, too."""
        rising = self.warmup * steps
        if step < rising:
            return (step + 1) / math.ceil(rising)
        if self.schedule == "constant" or rising >= steps:
            return 1.0
        gone = min(1.0, (step - rising) / (steps - rising))
        left = 1 - gone if self.schedule == "linear" else (1 + math.cos(math.pi * gone)) / 2
        return self.floor + (1 - self.floor) * left


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of one training run."""

    rate: Rate
    accumulate: int  # forward passes of one step, of all processes together; a multiple of their number
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0
    neftune_alpha: float | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    every_steps: int | None = None  # between two measurements; None: a tenth of all
    save_every_steps: int | None = None  # between two checkpoints; None: as every_steps
    patience: int | None = None  # measurements without a lower loss
    best: bool = True  # end with the weights of the lowest loss, where there is something to measure on
    seed: int = 0
