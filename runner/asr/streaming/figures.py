"""What the report says of a job's streams."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.asr.recordings import Recording
from runner.asr.score import Scorer
from runner.asr.spool import Spool
from runner.asr.streaming.measure import Histogram, add, percentiles
from runner.asr.streaming.settings import Settings
from runner.context import Table

Fields = dict[str, Any]
LATENCIES = {
    "shown_latency": "from a word's end until something is first shown in its place",
    "commit_latency": "from a word's end to its commit",
    "final_latency": "from an utterance's last word until its end is found",
}


@dataclass(kw_only=True)
class Figures:
    """Sums over all recordings that were streamed."""

    shown_latency: Histogram = field(default_factory=Counter)  # seconds of sound; negative before a word's end
    commit_latency: Histogram = field(default_factory=Counter)
    final_latency: Histogram = field(default_factory=Counter)
    window_ms: Histogram = field(default_factory=Counter)  # of computing
    final_ms: Histogram = field(default_factory=Counter)
    utterances: int = 0
    partial_words: int = 0
    partial_words_changed: int = 0
    audio_s: float = 0.0
    compute_s: float = 0.0  # model and decoding, of all recordings one after another
    committed: Scorer | None = None  # the committed words against the texts

    @property
    def windows(self) -> int:
        """Computed, final readings included; silence is not."""
        return self.window_ms.total() + self.final_ms.total()

    def metrics(self) -> Fields:
        """What is the same on any machine: seconds are of sound."""
        found: Fields = {"windows": self.windows, "utterances": self.utterances}
        for name in LATENCIES:
            found |= {f"{name}_{key}_s": value for key, value in percentiles(getattr(self, name)).items()}
        found["partial_words"], found["partial_words_changed"] = self.partial_words, self.partial_words_changed
        found["churn"] = self.partial_words_changed / self.partial_words if self.partial_words else None
        if self.committed is not None:
            found["committed_wer"] = self.committed.result().rates[0].words.rate
        return found

    def speed(self) -> Fields:
        """What this machine took: computing as a share of the sound's length, and milliseconds."""
        return {
            "real_time_factor": round(self.compute_s / self.audio_s, 5) if self.audio_s else None,
            "compute_s": round(self.compute_s, 3),
            "audio_s": round(self.audio_s, 3),
            "window_ms": percentiles(self.window_ms),
            "final_ms": percentiles(self.final_ms),
        }


def gather(spool: Spool, found: Sequence[Recording]) -> Figures:
    """Read what ``StreamCollector`` kept."""
    figures = Figures(committed=Scorer() if any(one.clip.text is not None for one in found) else None)
    for item, recording in enumerate(found):
        record, timing = spool.read(item)
        if "stream" in record:
            _add(figures, recording, record, timing, key=f"{recording.key} [{item}]")
    return figures


def _add(figures: Figures, recording: Recording, record: Fields, timing: Fields, *, key: str) -> None:
    stream = record["stream"]
    for name in LATENCIES:
        add(getattr(figures, name), stream[f"{name}_s"])
    for name in ("window_ms", "final_ms"):
        add(getattr(figures, name), timing[name])
    figures.utterances += len(record["segments"])
    figures.partial_words += stream["partial_words"]
    figures.partial_words_changed += stream["partial_words_changed"]
    figures.audio_s += record["duration_s"]
    figures.compute_s += (timing["timing_ms"]["infer"] + timing["timing_ms"]["postprocess"]) / 1000
    if figures.committed is not None and recording.clip.text is not None and not recording.named:
        committed = " ".join(segment["committed"] for segment in record["segments"])
        figures.committed.add(recording.clip.text, committed, key=key)


def write(figures: Figures, path: Path) -> None:
    """What this machine took, as a record: two runs never agree on it."""
    path.write_text(json.dumps(figures.speed(), indent=1) + "\n", encoding="utf-8")


def table(figures: Figures, settings: Settings, compared: Fields) -> Table:
    """All of it for people; ``compared`` are the figures of ``offline.compare``."""
    speed, metrics = figures.speed(), figures.metrics()
    rows: list[tuple[Any, ...]] = [("utterances", metrics["utterances"], "")]
    for name, what in LATENCIES.items():
        rows += [(f"{what}, {key}", metrics[f"{name}_{key}_s"], "s of sound") for key in ("p50", "p95", "max")]
    rows.append(("words of a partial that changed later", metrics["churn"], "share"))
    for name, what in (("window_ms", "computing a partial"), ("final_ms", "computing a final text")):
        rows += [(f"{what}, {key}", speed[name][key], "ms on this machine") for key in ("p50", "p95")]
    rows.append(("real-time factor, one stream at a time", speed["real_time_factor"], "s of computing a s of sound"))
    rows += [(name, value, "") for name, value in compared.items() if isinstance(value, float)]
    note = (
        f"windows of {settings.buffer_s:g} s, {settings.seconds(settings.chunk):g} s settled at once with "
        f"{settings.seconds(settings.lookahead):g} s of look-ahead"
    )
    return Table(title="Streaming", columns=("figure", "value", "unit"), rows=rows, note=note)
