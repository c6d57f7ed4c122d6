"""What a run ran on and with: for the manifest, found without importing any of it."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import runner
from runner.plan.capacity import local_capacity

# packages whose version may change a result or a speed
PACKAGES = (
    *("torch", "transformers", "tokenizers", "safetensors", "numpy", "soundfile", "soxr", "jiwer"),
    *("ray", "pydantic", "huggingface_hub"),
)


@functools.cache
def environment() -> dict[str, Any]:
    """Python, package versions, platform and devices of this machine."""
    node = local_capacity().nodes[0]
    gpus = [f"{count} x {kind}" for kind, count in sorted(node.gpus.items())]
    return {
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "platform": platform.platform(),
        "devices": [f"{node.cpus} x {_cpu()}, {node.memory_gb:.0f} GB memory", *gpus],
    }


@functools.cache
def code() -> dict[str, Any]:
    """Version of this package; commit and whether files differ from it, when it runs from a checkout of git."""
    home = Path(runner.__file__).parents[1]
    commit = _git(home, "rev-parse", "HEAD") if (home / ".git").exists() else None
    dirty = None if commit is None else bool(_git(home, "status", "--porcelain", "--untracked-files=no"))
    return {"version": runner.__version__, "commit": commit, "dirty": dirty}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine() or "CPU")


def _git(home: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(home), *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
