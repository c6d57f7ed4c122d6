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


class Probe:
    """A pool's worker: built with the job's setup, called with the seconds that one window computes."""

    def __init__(self, setup: Setup) -> None:
        self._rate = setup.source.rate
        self._engine = Transcriber(setup).engine

    def __call__(self, item: float) -> Memory | None:
        """What was measured; None where ``MANY`` windows do not fit, or take no more than ``FEW``."""
        window_s = item
        noise = np.random.default_rng(0).normal(scale=0.1, size=round(window_s * self._rate)).astype(np.float32)
        try:
            few, many = (self._peak([noise] * count) for count in (FEW, MANY))
        except torch.OutOfMemoryError:
            return None
        finally:
            torch.cuda.empty_cache()
        if many <= few:
            return None
        return Memory(free_bytes=torch.cuda.mem_get_info()[0], second_bytes=(many - few) / ((MANY - FEW) * window_s))

    def _peak(self, windows: list[np.ndarray]) -> int:
        torch.cuda.reset_peak_memory_stats()
        self._engine.compute(windows)
        return torch.cuda.max_memory_allocated()
