"""How much memory a second of audio takes on this GPU: measured once, by running the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from runner.asr.pieces import Setup
from runner.asr.transcriber import Transcriber

FEW, MANY = 1, 5  # windows; what both take alike (workspaces, the weights) falls out of the difference


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Of one GPU, with the model loaded."""

    free_bytes: int
    second_bytes: float  # of one padded second

    def __post_init__(self) -> None:
        assert self.second_bytes > 0, f"{MANY} windows took no more memory than {FEW}: {self}"


class Probe:
    """A pool's worker: built with the job's setup, called with the seconds of a window."""

    def __init__(self, setup: Setup) -> None:
        self._rate = setup.source.rate
        self._engine = Transcriber(setup).engine

    def __call__(self, item: float) -> Memory:
        window_s = item
        noise = np.random.default_rng(0).normal(scale=0.1, size=round(window_s * self._rate)).astype(np.float32)
        few, many = (self._peak([noise] * count) for count in (FEW, MANY))
        torch.cuda.empty_cache()
        return Memory(free_bytes=torch.cuda.mem_get_info()[0], second_bytes=(many - few) / ((MANY - FEW) * window_s))

    def _peak(self, windows: list[np.ndarray]) -> int:
        torch.cuda.reset_peak_memory_stats()
        self._engine.compute(windows)
        return torch.cuda.max_memory_allocated()
