"""The worker that times variants: each in turns with the unquantised model in plain transformers, window by window.

The speed of a shared machine drifts by half within minutes; in turns both see the same minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from runner.asr.acoustic import Acoustic, features_of, load_whole, settle_arithmetic
from runner.asr.pieces import Piece, Source
from runner.asr.quantise.hearing import Samples, heard
from runner.precision import Wanted, choose

BASELINE = "plain transformers, the unquantised model in fp32, one recording at a time"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a worker must know."""

    source: Source  # the unquantised model
    precision: Wanted  # of variants without a number format of their own
    device: str
    threads: int
    pieces: Sequence[Piece]
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Laps:
    """Seconds that each window took, [rounds, windows]."""

    variant: str
    audio_s: tuple[float, ...]  # length of each window
    baseline: tuple[tuple[float, ...], ...]
    seconds: tuple[tuple[float, ...], ...]
    threads: int

    @property
    def speedup(self) -> float:
        """Of the whole pass, each window at its best."""
        before, after = (float(np.min(laps, axis=0).sum()) for laps in (self.baseline, self.seconds))
        return before / after


class Stopwatch:
    """Called with the folders of some variants by name; normalising counts, reading files does not."""

    def __init__(self, timing: Timing) -> None:
        settle_arithmetic()
        torch.set_num_threads(timing.threads)
        self._timing = timing
        self._plain = _Plain(timing.source, timing.device)
        self._windows = heard(timing.pieces, timing.source, purpose="time on")

    def __call__(self, item: dict[str, Source]) -> list[Laps]:
        return [self._race(name, source) for name, source in item.items()]

    def _race(self, name: str, source: Source) -> Laps:
        dtype = choose(self._timing.precision, device=self._timing.device).dtype
        acoustic = Acoustic(source, device=self._timing.device, dtype=dtype)

        def quantised(window: Samples) -> Any:
            return acoustic.log_probs([window])

        longest = max(self._windows, key=len)
        for hear in (self._plain, quantised):
            hear(longest)  # the first time is slower: memory is taken, code is made
        rate = self._timing.source.rate
        laps = [
            [(_took(self._plain, w), _took(quantised, w)) for w in self._windows] for _ in range(self._timing.rounds)
        ]
        return Laps(
            variant=name,
            audio_s=tuple(len(window) / rate for window in self._windows),
            baseline=tuple(tuple(one for one, _ in row) for row in laps),
            seconds=tuple(tuple(one for _, one in row) for row in laps),
            threads=torch.get_num_threads(),
        )


class _Plain:
    """transformers' own forward, on one window."""

    def __init__(self, source: Source, device: str) -> None:
        self._model = load_whole(source).eval().to(device)
        self._features = features_of(source)

    @torch.inference_mode()
    def __call__(self, window: Samples) -> Any:
        given = self._features(window)[None].to(self._model.device)
        logits = self._model(**{self._model.main_input_name: given}).logits[0]
        return torch.log_softmax(logits, dim=-1).cpu().numpy()


def _took(hear: Callable[[Samples], Any], window: Samples) -> float:
    began = time.perf_counter()
    hear(window)
    return time.perf_counter() - began


def record(laps: Sequence[Laps]) -> dict[str, Any]:
    """What `speed.json` says. Latencies in milliseconds a recording, real-time factors as time over audio."""
    every = [row for one in laps for row in one.baseline]
    return {
        "baseline": {"what": BASELINE, **_figures(every, laps[0].audio_s)} if laps else {"what": BASELINE},
        "threads": laps[0].threads if laps else None,
        "recordings": len(laps[0].audio_s) if laps else 0,
        "rounds": len(laps[0].seconds) if laps else 0,
        "variants": {one.variant: {**_figures(one.seconds, one.audio_s), "speedup": one.speedup} for one in laps},
    }


def _figures(seconds: Sequence[Sequence[float]], audio_s: Sequence[float]) -> dict[str, float]:
    taken = np.array(seconds)
    p50, p95 = np.percentile(taken, (50, 95))
    return {
        "p50_ms": round(1000 * float(p50), 3),
        "p95_ms": round(1000 * float(p95), 3),
        "real_time_factor": round(float(taken.min(axis=0).sum() / np.sum(audio_s)), 6),
    }
