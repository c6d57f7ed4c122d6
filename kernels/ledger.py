"""What was put into a model and what was not, with the reason: one line an optimisation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Wanted = Literal["required", "preferred", "off"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One optimisation: wanted, applied or skipped, why, and at which places."""

    what: str  # name of the patch
    wanted: Wanted
    applied: bool
    why: str
    places: tuple[str, ...] = ()  # paths of modules inside the model
    parity_error: float | None = None  # of the patched way, largest difference over the largest value of the truth
    saving: str | None = None  # measured, in words with its unit

    @property
    def kinds(self) -> dict[str, list[str]]:
        """Its places, those together whose paths differ in numbers alone: {"model.layers.*.mlp": [...]}."""
        found: dict[str, list[str]] = {}
        for path in self.places:
            found.setdefault(re.sub(r"\.\d+(?=\.|$)", ".*", path) or "the model", []).append(path)
        return found

    @property
    def where(self) -> str:
        """Its places in short: "model.layers.*.mlp (32)"."""
        return ", ".join(f"{kind} ({len(paths)})" for kind, paths in self.kinds.items())

    def fields(self) -> dict[str, Any]:
        """As a report wants it: what, where, wanted, applied, why, parity_error, saving."""
        names = ("what", "where", "wanted", "applied", "why", "parity_error", "saving")
        return {name: getattr(self, name) for name in names}


@dataclass(kw_only=True)
class Ledger:
    """The lines of one model, in the order in which patches are named."""

    lines: list[Line] = field(default_factory=list)

    def applied(self) -> list[Line]:
        """The lines of what is in the model."""
        return [line for line in self.lines if line.applied]

    def of(self, what: str) -> list[Line]:
        """The lines of one patch: two where some of its places could not be taken."""
        return [line for line in self.lines if line.what == what]

    def change(self, line: Line, **fields: Any) -> Line:
        """Put `line` with other values in its place."""
        changed = replace(line, **fields)
        self.lines[self.lines.index(line)] = changed
        return changed

    def extend(self, lines: Iterable[Line]) -> None:
        """Add lines at the end."""
        self.lines.extend(lines)
