"""Which executor carries an apply out: ray, unless `--local` asks for this process. Inline is never a fallback."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

from runner.execution import cluster
from runner.execution.failures import Stop
from runner.execution.inline import Inline
from runner.execution.order import Executor
from runner.schema.errors import UsageError


def address_of(address: str | None) -> str | None:
    """The cluster to join: ``--address``, else RAY_ADDRESS; None starts one on this machine."""
    return address or os.environ.get("RAY_ADDRESS") or None


def executor(
    *, local: bool, address: str | None, say: Callable[[str], None]
) -> Callable[[Callable[[Stop], None]], Executor]:
    """A maker for the executor that was asked for. It raises UsageError when ray is wanted and not installed."""

    def make(last_resort: Callable[[Stop], None]) -> Executor:
        if local:
            return Inline(hard=last_resort)
        if importlib.util.find_spec("ray") is None:
            raise UsageError(
                "ray is not installed: pip install 'ray[default,train]>=2.54', or add --local to run in this process"
            )
        place = cluster.prepare(address_of(address))
        # only when something has to run, and after its environment was set: ray takes 0.85 CPU-s to import
        from runner.execution.ray import Ray  # noqa: PLC0415

        return Ray(place, say=say)

    return make
