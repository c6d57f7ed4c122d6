"""Rows that no model can learn from: the first stops the job, or each is left out, counted and listed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from runner.schema.errors import JobError

Policy = Literal["stop", "skip"]
MAX_LISTED = 100_000  # about 20 MB; the counts go on
EXAMPLES = 3  # of each reason


class Skipped:
    """What was left out. A reason is `class: particulars`; counts and examples are by class.

    One process fills it; ``to_json`` of another's is taken over by ``merge``, in the order in which it is called. A
    place counts once, since a stream comes by again.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy: Policy = policy
        self.counts: Counter[str] = Counter()
        self.listed: list[tuple[str, str]] = []  # place and reason, the first ``MAX_LISTED``
        self._places: set[str] = set()  # of those

    def add(self, place: str, reason: str) -> None:
        """Note a broken row, once. Raises JobError where the policy is to stop."""
        if self.policy == "stop":
            raise JobError(
                f"{place}: {reason}; mend the row, or leave such rows out with data.on_error: skip",
                failure="DataInvalid",
            )
        if place in self._places:
            return
        self.counts[reason.partition(": ")[0]] += 1
        if len(self.listed) < MAX_LISTED:
            self.listed.append((place, reason))
            self._places.add(place)

    @property
    def total(self) -> int:
        """How many rows were left out."""
        return self.counts.total()

    @property
    def examples(self) -> dict[str, list[str]]:
        """The first few of each class, as `place: reason`."""
        found: dict[str, list[str]] = {}
        for place, reason in self.listed:
            of_class = found.setdefault(reason.partition(": ")[0], [])
            if len(of_class) < EXAMPLES:
                of_class.append(f"{place}: {reason}")
        return found

    def write(self, path: Path) -> None:
        """One line of JSON a row that was left out; a last one says how many more there were."""
        rows: list[dict[str, Any]] = [{"place": place, "reason": reason} for place, reason in self.listed]
        if self.total > len(self.listed):
            rows.append({"more": self.total - len(self.listed)})
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON types, for another process."""
        return {"counts": dict(self.counts), "listed": [list(row) for row in self.listed]}

    def taken(self) -> dict[str, Any]:
        """``to_json``, and then nothing is known of it here any more."""
        found = self.to_json()
        self.counts.clear()
        self.listed.clear()
        self._places.clear()
        return found

    def merge(self, other: dict[str, Any]) -> dict[str, Any]:
        """Take over what another left out, its ``to_json``; what of it was not known, in the same form."""
        fresh = [(place, reason) for place, reason in other["listed"] if place not in self._places]
        counts = Counter(reason.partition(": ")[0] for _, reason in fresh)
        counts += Counter(other["counts"]) - Counter(reason.partition(": ")[0] for _, reason in other["listed"])
        self.counts.update(counts)
        fresh = fresh[: MAX_LISTED - len(self.listed)]
        self.listed += fresh
        self._places.update(place for place, _ in fresh)
        return {"counts": dict(counts), "listed": [list(row) for row in fresh]}
