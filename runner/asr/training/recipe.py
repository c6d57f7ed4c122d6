"""How a model is trained, in plain values: what decides the weights, beside the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is changed in the sound of a clip; 0 and None leave it as it is."""

    noise_snr_db: tuple[float, float] | None = None  # lowest and highest level of white noise below the speech
    speed: float = 0.0  # largest share by which a clip is played faster or slower
    pause_s: float = 0.0  # longest silence before, behind and between clips
    join: int = 1  # most clips in one
    silence: float = 0.0  # share of clips that become faint noise without text


@dataclass(frozen=True, kw_only=True)
class Masks:
    """SpecAugment: shares of frames and features masked, and the length of one mask."""

    time: float = 0.0
    time_frames: int = 10
    feature: float = 0.0
    feature_width: int = 10


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank matrices beside the encoder's linear layers (Hu et al. 2021), weighted by alpha / r."""

    r: int
    alpha: float
    dropout: float


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The learning rate over the run: a ramp, a plain, and a fall to ``floor`` of the highest; shares of all steps."""

    highest: float
    warmup: float
    hold: float
    decay: Literal["linear", "cosine"]
    floor: float

    def share_at(self, step: int, *, steps: int) -> float:
        """Share of the highest rate at ``step`` of ``steps``, counted from 0."""
        rising, falling = self.warmup * steps, (self.warmup + self.hold) * steps
        if step < rising:
            return (step + 1) / math.ceil(rising)
        if step < falling or falling >= steps:
            return 1.0
        gone = min(1.0, (step - falling) / (steps - falling))
        left = 1 - gone if self.decay == "linear" else (1 + math.cos(math.pi * gone)) / 2
        return self.floor + (1 - self.floor) * left


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of one training run."""

    epochs: int | None  # exactly one of epochs and steps is given
    steps: int | None
    rate: Rate
    weight_decay: float
    betas: tuple[float, float]
    clip_norm: float
    accumulate: int  # batches in one step
    seconds: float  # most padded seconds in one batch
    clips: int  # most clips in one batch
    shortest_first: bool
    augmentation: Augmentation
    checkpointing: bool
    precision: Literal["fp32", "bf16", "fp16"]
    every_steps: int | None  # between two evaluations; None: a tenth of all
    patience: int | None  # evaluations without a better one
    seed: int
