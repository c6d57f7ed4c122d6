"""How much audio goes into one batch. The answer is kept, so that every attempt plans the same batches."""

from __future__ import annotations

from dataclasses import dataclass

from runner.asr.batches import Size
from runner.asr.probe import Memory

CPU_S = 40.0  # 0.7 GB beside the weights of wav2vec2-large
GPU_LEAST_S, GPU_MOST_S = 30.0, 1200.0
GPU_SHARE = 0.6  # of the memory that is free once the model is loaded; the rest is for what fragmentation wastes
HELD_BYTES = 1 << 28  # of output: what a worker computes at once, and what it hands over at once


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


def bounded(size: Sizing, *, second_bytes: float) -> Sizing:
    """``size``, or less where the output of that much audio would fill the memory: all layers of a model do."""
    most = HELD_BYTES / max(1, second_bytes)
    if size.seconds <= most:
        return size
    return Sizing(
        seconds=most, why=f"{second_bytes / 1e6:.1f} MB of output a second, {HELD_BYTES / 1e6:.0f} MB at once"
    )


def handed_over(size: Sizing, *, second_bytes: float) -> int:
    """Of how many batches a worker may hand the output over at once; one at least."""
    return max(1, int(HELD_BYTES / max(1, second_bytes * size.seconds)))
