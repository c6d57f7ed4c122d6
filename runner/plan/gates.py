"""Gates: conditions on the metrics that an artifact must meet to be published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """One gate held against the metrics."""

    name: str  # "max_wer"
    limit: float
    value: float | None  # None: the run has no such figure
    passed: bool

    def __str__(self) -> str:
        metric = self.name[4:]
        if self.value is None:
            return f"gate {self.name} {self.limit:g} not met: the run has no figure for {metric!r}"
        return f"gate {self.name} {self.limit:g} {'met' if self.passed else 'not met'}: {metric} is {self.value:.6g}"


def check(gates: Mapping[str, Any], metrics: Mapping[str, Any]) -> tuple[GateResult, ...]:
    """Hold each limit that is set against its metric: `max_x` needs metrics["x"] <= limit, `min_x` >= limit.

    A metric that is missing, NaN or no number fails its gate: nothing is published on a figure nobody measured.
    """
    return tuple(_check(name, limit, metrics) for name, limit in gates.items() if limit is not None)


def _check(name: str, limit: float, metrics: Mapping[str, Any]) -> GateResult:
    bound, metric = name[:4], name[4:]
    assert bound in {"max_", "min_"}, f"a gate is called max_x or min_x, not {name!r}"
    found = metrics.get(metric)
    if isinstance(found, bool) or not isinstance(found, int | float) or math.isnan(found):
        return GateResult(name=name, limit=limit, value=None, passed=False)
    passed = found <= limit if bound == "max_" else found >= limit
    return GateResult(name=name, limit=limit, value=float(found), passed=passed)
