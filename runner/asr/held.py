"""The transcripts held against the texts, as far as there are any, and what goes to review: the report's part of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runner.asr import trust
from runner.asr.route import Routed
from runner.asr.score import Scores
from runner.asr.trust import Trust
from runner.context import Plot, Table

Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Held:
    """What is not known is None."""

    scores: Scores | None
    trust: Trust | None
    routed: Routed | None

    def metrics(self) -> Fields:
        """Error rates, how well confidence ranks, and how many recordings are to be reviewed."""
        found: Fields = dict(self.scores.metrics()) if self.scores else {}
        if self.trust is not None:
            found |= {f"confidence_{name}": getattr(self.trust, name) for name in ("words", "wrong", "ece", "auroc")}
        if self.routed is not None:
            found["review"] = self.routed.count
        return found

    def tables(self, *between: tuple[Table, ...]) -> tuple[Table, ...]:
        """What is to be reviewed first, what is known of confidence last."""
        routed = (self.routed.table(),) if self.routed else ()
        trusted = (trust.table(self.trust),) if self.trust and self.trust.words else ()
        return (*routed, *(table for some in between for table in some), *trusted)

    def plots(self) -> tuple[Plot, ...]:
        """Confidence against the share that is right."""
        return (trust.reliability(self.trust),) if self.trust and self.trust.words else ()
