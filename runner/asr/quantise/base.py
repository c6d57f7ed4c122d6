"""What every variant is made from, and what it is when opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from runner.asr.features import Features
from runner.asr.pieces import Source

Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Base:
    """The unquantised model: in fp32, on the CPU, as transformers has it."""

    model: Any
    folded: Callable[[], Any]  # the same with normalised weights computed once: a graph is made of that
    features: Features
    rate: int  # Hz
    group: int  # weights of int4 that share a scale
    calibration: Callable[[], list[torch.Tensor]]  # inputs to calibrate with, each [samples] or [frames, bins]


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a variant's ``quantise`` has written into its folder, and what is worth telling of it."""

    weights: list[str]  # names of the files that hold them
    format: Literal["transformers", "quantised", "onnx"]
    settings: Fields = field(default_factory=dict)  # what ``load`` needs
    parity: list[Fields] = field(default_factory=list)  # ONNX: against torch


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A variant in memory."""

    model: Any  # a transformers model, or something in its dress
    source: Source  # as the model wants to be fed
    settled: bool = False  # whether it has its own number formats, whatever precision is asked for
    about: dict[str, str] = field(default_factory=dict)  # for the ledger
