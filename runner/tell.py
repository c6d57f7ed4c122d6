"""How a training run is heard of, and asked to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tell:
    """What a job's context has for it; in a team only the first process is heard."""

    progress: Callable[[int, int, str], None]  # done, total, unit
    log: Callable[[str], None]
    metric: Callable[[str, float], None]
    check: Callable[[], None]  # raises when the run was cancelled or is out of time
