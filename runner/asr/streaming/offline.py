"""The same recordings transcribed at leisure, to hold the streams against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.asr import sweep
from runner.asr.collector import Collector
from runner.asr.pieces import Setup
from runner.asr.recordings import Clip, Recording
from runner.asr.score import Rate, Scorer
from runner.asr.spool import Spool
from runner.asr.sweep import Shape
from runner.context import Context

Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Error rates of words, over recordings that both could transcribe."""

    to_offline: Rate  # of the streams' final texts, the offline ones taken as references
    offline: Rate | None  # against the manifest's texts; None without any
    streaming: Rate | None  # of the same recordings

    def metrics(self) -> Fields:
        """`wer_to_offline`; with texts `offline_wer` and `wer_over_offline`, how much higher streaming's is."""
        counts = self.to_offline.counts
        found: Fields = {
            "wer_to_offline": self.to_offline.rate,
            "wer_to_offline_counts": {"errors": counts.errors, "references": counts.references},
        }
        if self.offline and self.streaming and self.offline.rate is not None and self.streaming.rate is not None:
            found |= {"offline_wer": self.offline.rate, "wer_over_offline": self.streaming.rate - self.offline.rate}
        return found


def compare(ctx: Context, setup: Setup, clips: list[Clip], spool: Spool, *, shape: Shape, model_type: str) -> Compared:
    """Transcribe ``clips`` in windows as ``shape`` says, and compare with the final texts in ``spool``."""
    beside = replace(ctx, checkpoints=ctx.checkpoints / "offline")
    beside.checkpoints.mkdir(exist_ok=True)
    heard = sweep.prepare(beside, setup, clips, shape=shape, model_type=model_type)
    offline = heard.spool(beside)
    try:
        sweep.hear(beside, heard, offline, Collector(offline, heard.layout, heard.found, setup))
        return _compared(spool, offline, heard.found)
    finally:
        offline.close()


def _compared(streamed: Spool, offline: Spool, found: Sequence[Recording]) -> Compared:
    to_offline, by_offline, by_stream = Scorer(), Scorer(), Scorer()
    for item, recording in enumerate(found):
        (one, _), (other, _) = streamed.read(item), offline.read(item)
        if one["error"] or other["error"]:
            continue
        key = f"{recording.key} [{item}]"
        to_offline.add(other["text"], one["text"], key=key)
        if recording.clip.text is not None and not recording.named:
            by_offline.add(recording.clip.text, other["text"], key=key)
            by_stream.add(recording.clip.text, one["text"], key=key)
    texts = any(recording.clip.text is not None for recording in found)
    return Compared(
        to_offline=_words(to_offline),
        offline=_words(by_offline) if texts else None,
        streaming=_words(by_stream) if texts else None,
    )


def _words(scorer: Scorer) -> Rate:
    return scorer.result().rates[0].words
