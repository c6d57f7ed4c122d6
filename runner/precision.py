"""Which number format the model runs in, and why."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from runner.schema.errors import JobError

Wanted = Literal["auto", "fp32", "bf16", "fp16"]
CPU_BF16_FLAGS = ("amx_bf16", "avx512_bf16")  # without them bf16 is emulated: 2.3 times slower than fp32 (Cascade Lake)


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The format chosen and the reason, for the ledger."""

    name: Literal["fp32", "bf16", "fp16"]
    why: str

    @property
    def dtype(self) -> torch.dtype:
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]


def choose(wanted: Wanted, *, device: str) -> Precision:
    """Resolve ``wanted`` on ``device`` ("cpu" or "cuda"). Raises JobError for what the device cannot do."""
    native, reason = native_bf16(device)
    if wanted == "auto":
        return Precision(name="bf16" if native else "fp32", why=reason)
    if wanted == "fp16" and device == "cpu":
        raise JobError("precision 'fp16' is for GPUs: CPUs emulate it; use auto, fp32 or bf16", failure="Infeasible")
    slow = wanted == "bf16" and not native
    return Precision(name=wanted, why=f"asked for by the spec, although {reason}" if slow else "asked for by the spec")


def native_bf16(device: str) -> tuple[bool, str]:
    """Whether ``device`` multiplies in bf16, and the reason in words."""
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        name = torch.cuda.get_device_name()
        able = (major, minor) >= (8, 0)
        return able, f"{name} (capability {major}.{minor}) {'computes in bf16' if able else 'has no bf16 units'}"
    found = [flag for flag in CPU_BF16_FLAGS if flag in _cpu_flags()]
    if found:
        return True, f"this CPU computes in bf16 ({', '.join(found)})"
    return False, f"this CPU has no bf16 instructions (none of {', '.join(CPU_BF16_FLAGS)})"


@cache
def _cpu_flags() -> frozenset[str]:
    if platform.system() != "Linux":
        return frozenset()
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()
