"""How much audio goes into one batch. The answer is kept, so that every attempt plans the same batches."""

from __future__ import annotations

from dataclasses import dataclass

from runner.asr.batches import Size
from runner.asr.probe import Memory

CPU_S = 40.0  # 0.7 GB beside the weights of wav2vec2-large
GPU_LEAST_S, GPU_MOST_S = 30.0, 1200.0
GPU_SHARE = 0.6  # of the memory that is free once the model is loaded; the rest is for what fragmentation wastes


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """Seconds of one batch, padding included, and why."""

    seconds: float
    why: str

    def size(self, *, rate: int, windows: int, packed: bool) -> Size:
        """The same in samples."""
        return Size(samples=round(self.seconds * rate), windows=windows, packed=packed)


def asked(seconds: float) -> Sizing:
    """What the spec says."""
    return Sizing(seconds=seconds, why="batch.seconds of the spec")


def on_cpu() -> Sizing:
    """The same on every CPU: nothing is padded there, so a larger batch gains little and only takes memory."""
    return Sizing(seconds=CPU_S, why="on CPUs nothing is padded: more gains little and takes memory")


def on_gpu(memory: Memory | None) -> Sizing:
    """What fits, by the memory that a probe measured; the least where it measured nothing."""
    if memory is None:
        return Sizing(seconds=GPU_LEAST_S, why="the probe's windows did not fit: the least, halved where need be")
    fits = GPU_SHARE * memory.free_bytes / memory.second_bytes
    each = f"{memory.second_bytes / 1e6:.1f} MB a second measured"
    return Sizing(
        seconds=round(min(GPU_MOST_S, max(GPU_LEAST_S, fits))),
        why=f"{GPU_SHARE:.0%} of {memory.free_bytes / 1e9:.0f} GB free, {each}",
    )
