"""Where a hub is, and where what came from it lies: huggingface_hub's own settings, read without importing it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

Kind = Literal["model", "dataset"]


def endpoint() -> str:
    """Address of the hub."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def cache() -> Path:
    """Folder of the cache that huggingface_hub and transformers share."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.path.expandvars(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")).expanduser()


def home_of(repo: str, *, kind: Kind = "model") -> Path:
    """Folder of the cache that belongs to ``repo``."""
    return cache() / f"{kind}s--{repo.replace('/', '--')}"


def offline() -> bool:
    """Whether the environment forbids requests."""
    values = (os.environ.get(name, "").upper() for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value in {"1", "ON", "YES", "TRUE"} for value in values)
