"""How fast this device multiplies: what MFU is a share of, measured and not taken from a data sheet."""

from __future__ import annotations

import platform
import time
from functools import cache
from typing import Literal

import torch

from runner.llm.training.meter import Peak

SIDES = {"cpu": 1024, "cuda": 8192}  # 2 and 1,100 GFLOP
REPEATS = 5


@cache
def measure(device: str, precision: Literal["fp32", "bf16", "fp16"]) -> Peak:
    """The best of five products of square matrices in the format that training multiplies in; 0.2 s on two cores."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    side = SIDES[device]
    draw = torch.Generator(device).manual_seed(0)
    a = torch.randn(side, side, generator=draw, device=device).to(dtype)
    seconds = min([_timed(a, device) for _ in range(1 + REPEATS)][1:])
    return Peak(rate=2 * side**3 / seconds, device=_name(device))


def _timed(a: torch.Tensor, device: str) -> float:
    began = time.perf_counter()
    a @ a
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} thread{'s' if threads > 1 else ''}"
