"""How much audio goes into one batch: a rule on device and model, so that every attempt plans the same batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runner.asr.batches import Size

CPU_S = 40.0
GPU_MOST_S = 1200.0
GPU_SHARE = 0.6  # of the memory that is left beside the weights


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """Seconds of one batch, padding included, and why."""

    seconds: float
    why: str

    def size(self, *, rate: int, windows: int, packed: bool) -> Size:
        """The same in samples."""
        return Size(samples=round(self.seconds * rate), windows=windows, packed=packed)


def sizing(asked_s: float | None, *, device: str, memory_bytes: int | None, facts: dict[str, Any]) -> Sizing:
    """The size asked for, or the rule's. ``memory_bytes`` is the GPU's, where it can be seen from here."""
    if asked_s is not None:
        return Sizing(seconds=asked_s, why="batch.seconds of the spec")
    if device == "cpu":
        return Sizing(seconds=CPU_S, why="CPU: more than this no longer gains speed and spills out of the cache")
    memory = memory_bytes or 16 * 10**9
    left = max(0.1 * memory, memory - facts.get("weights_bytes", 0))
    seconds = min(GPU_MOST_S, max(30.0, GPU_SHARE * left / bytes_per_second(facts)))
    return Sizing(seconds=round(seconds), why=f"{GPU_SHARE:.0%} of {left / 1e9:.0f} GB beside the weights")


def bytes_per_second(facts: dict[str, Any]) -> float:
    """Memory of one padded second, upper estimate in fp32: the first convolution's output, three times (in, out, norm).

    512 channels at 3,200 Hz for every wav2vec2-like model; the encoder's widest layer, four times the hidden size,
    stays below it. 20 MB/s.
    """
    frames_per_second = facts["sample_rate"] / facts["stride_samples"]
    convolutions = 3 * 512 * 64 * frames_per_second * 4
    encoder = 8 * 4 * float(facts.get("hidden") or 1024) * frames_per_second * 4
    return float(max(convolutions, encoder))
