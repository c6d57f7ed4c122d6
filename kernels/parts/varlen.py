"""What forward and backward of attention over packed documents share: what is asked for, and sizes of tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runner.kernels.launch import interpreted, power_of_two
from runner.kernels.parts.scores import factor, sides

ROOM = 160 * 1024  # shared memory of one program: 163 KiB on 8.0, 227 on 9.0 and 10.0, but 99 on 8.6, 8.9 and 12.0

# Queries, keys, warps and stages of a tile by the widest head, in 16 bits. Chosen by arithmetic and by what ptxas says
# of registers and spills for 9.0, not by measuring. Shared memory holds a tile of what stays (q; q and do; k and v)
# and `stages` of what passes: forward at 128 features has 32 KiB + 3 * 2 * 16. A warp group's accumulators and scores
# must leave room in 255 registers a thread: dk and dv of 128 keys and 128 features take 128 of them with 8 warps.
TILES = {
    "forward": {64: (128, 64, 4, 3), 128: (128, 64, 8, 3), 256: (128, 64, 8, 2)},
    "dq": {64: (128, 64, 8, 3), 128: (128, 64, 8, 2), 256: (64, 32, 4, 2)},
    "dkv": {64: (64, 128, 8, 2), 128: (64, 128, 8, 2), 256: (32, 64, 8, 2)},
}
NARROW = {  # where there is less room: 80 KiB at most, compiled for 8.0
    "forward": {64: (128, 64, 4, 2), 128: (64, 64, 4, 2), 256: (64, 32, 4, 1)},
    "dq": {64: (64, 64, 4, 2), 128: (64, 32, 4, 2), 256: (32, 32, 4, 1)},
    "dkv": {64: (64, 64, 4, 2), 128: (32, 64, 4, 2), 256: (32, 32, 4, 1)},
}
PRECISE = {64: (32, 32, 4, 1), 128: (32, 32, 4, 1), 256: (16, 16, 4, 1)}  # fp32, without tensor cores: right, not fast


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a call asks for beside its tensors. `longest` is a length of documents, and chooses tiles alone."""

    causal: bool
    scale: float
    window: int | None
    softcap: float | None
    longest: int

    def numbers(self) -> tuple[float, float, float, int, int]:
        """scale, factor, softcap, back and ahead, as kernels take them."""
        back, ahead = sides(self.causal, self.window)
        return self.scale, factor(self.scale, self.softcap), self.softcap or 1.0, back or 0, ahead or 0

    def options(self, kernel: str, q_THD: Tensor, v_TGE: Tensor) -> dict[str, Any]:
        """Constants, warps and stages of a launch of "forward", "dq" or "dkv"."""
        back, ahead = sides(self.causal, self.window)
        features, width = q_THD.shape[2], v_TGE.shape[2]
        queries, keys, warps, stages = tile(kernel, q_THD, max(features, width))
        longest = power_of_two(max(self.longest, 16))
        return {
            "D": features,
            "E": width,
            "BLOCK_D": power_of_two(max(features, 16)),
            "BLOCK_E": power_of_two(max(width, 16)),
            "BLOCK_Q": min(queries, longest),
            "BLOCK_K": min(keys, longest),
            "BACK": back is not None,
            "AHEAD": ahead is not None,
            "CAPPED": self.softcap is not None,
            "UPCAST": interpreted(),
            "num_warps": warps if longest >= max(queries, keys) else 4,
            "num_stages": stages,
        }


def tile(kernel: str, x: Tensor, widest: int) -> tuple[int, int, int, int]:
    """Queries, keys, warps and stages for heads of so many features in the dtype and on the device of `x`."""
    row = max(power_of_two(widest), 64)
    if x.dtype == torch.float32:
        return PRECISE[row]
    if not x.is_cuda:
        return TILES[kernel][row]
    room = getattr(torch.cuda.get_device_properties(x.device), "shared_memory_per_block_optin", 0)
    return (TILES if room >= ROOM else NARROW)[kernel][row]
