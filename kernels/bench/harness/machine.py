"""What a row says about where it was measured: device, its two ceilings, versions, state of the code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

KERNELS = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "triton", "transformers", "liger-kernel")


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What the device reaches on the simplest work of each kind."""

    copy_bytes_per_s: float  # bytes read plus bytes written
    matrix_flops_per_s: float  # bf16, fp32 sums

    def share(self, bound: str, amount: float, milliseconds: float) -> float:
        """Of the ceiling that bounds it, for that many bytes or operations in that time."""
        ceiling = self.copy_bytes_per_s if bound == "memory" else self.matrix_flops_per_s
        return amount / (milliseconds / 1e3) / ceiling


def ceilings() -> Ceilings:
    """Measured now, on the current GPU."""
    return Ceilings(copy_bytes_per_s=_copy_rate(), matrix_flops_per_s=_matrix_rate())


def _copy_rate() -> float:
    """Of 2 GiB, or less where there is less memory."""
    size = int(min(2**31, torch.cuda.mem_get_info()[0] // 8))
    source = torch.empty(size // 4, dtype=torch.float32, device="cuda").normal_()
    into = torch.empty_like(source)
    return 2 * source.nbytes / _median_s(lambda: into.copy_(source))


def _matrix_rate() -> float:
    """Of 8,192 x 8,192 random numbers."""
    a, b = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))
    return 2 * 8192**3 / _median_s(lambda: a @ b)


def _median_s(work: Callable[[], object]) -> float:
    times: list[float] = []
    for number in range(25):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        if number >= 5:
            times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def cache_bytes(device: torch.device) -> int:
    """Of its L2 cache."""
    size: int = torch.cuda.get_device_properties(device).L2_cache_size
    return size


def identity(measured: Ceilings | None) -> dict[str, Any]:
    """Device, versions and code, for every row."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "device": device,
        "ceilings": None if measured is None else asdict(measured),
        "versions": {name: version(name) for name in PACKAGES},
        **code(KERNELS.parent),
        "digest": digest(KERNELS),
    }


def version(package: str) -> str | None:
    """Of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def code(root: Path) -> dict[str, Any]:
    """The commit, and whether files of kernels differ from it; None where git cannot tell."""
    commit, changed = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--", "kernels", "tests")
    return {"commit": commit, "dirty": None if changed is None else changed != ""}


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def digest(folder: Path) -> str:
    """Of the text of all kernels: says which code it was where there is no git."""
    files = sorted(folder.rglob("*.py"))
    text = b"".join(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() for path in files)
    return hashlib.sha256(text).hexdigest()[:16]


def slug(device: str) -> str:
    """A device's name as a file's: "NVIDIA H200" -> "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
