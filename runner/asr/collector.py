"""From windows' outcomes to recordings' results, kept on disk as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.asr import ctc, silence
from runner.asr.decode import Decoded
from runner.asr.layout import Layout
from runner.asr.pieces import Answer, Outcome, Said, Setup, Timing
from runner.asr.recordings import Recording
from runner.asr.sequence import decoded_of, kept
from runner.asr.spool import Spool
from runner.asr.trouble import RecordingError
from runner.asr.words import Word

Fields = dict[str, Any]
Rows = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Head:
    """The model's output, as the workers report it."""

    vocab: int
    blank: int


class Collector:
    """Takes answers in any order.

    What becomes of a recording's output is in ``failed``, ``alone``, ``joined`` and ``quiet_row``: other kinds have
    their own.
    """

    def __init__(self, spool: Spool, layout: Layout, recordings: Sequence[Recording], setup: Setup) -> None:
        self._spool, self._layout, self._recordings, self._setup = spool, layout, recordings, setup
        self.done = spool.resumed

    def start(self) -> None:
        """Keep what is known without a worker: what the headers ruled out, and recordings whose windows were all
        there when the last attempt ended."""
        for item, recording in enumerate(self._recordings):
            if recording.trouble is not None and not self._spool.has(item, 0):
                self._finish(item, self.failed(recording, recording.trouble), Timing())
        self._spool.flush()

    def take(self, answer: Answer) -> None:
        """Keep one worker's answer."""
        head = Head(vocab=answer.vocab, blank=answer.blank)
        for outcome in answer.outcomes:
            if self._spool.has(outcome.item, outcome.window):
                continue
            recording = self._recordings[outcome.item]
            count = self._layout.cut.count(recording.samples)
            if count == 1:
                trouble = outcome.trouble
                result = self.failed(recording, trouble) if trouble else self.alone(recording, outcome)
                self._finish(outcome.item, result, outcome.timing)
                continue
            windows = self._spool.add_window(outcome.item, outcome.window, self._entry(outcome, head))
            if len(windows) == count:
                self._join(outcome.item, windows)
        self._spool.flush()

    def resume(self) -> None:
        """Join recordings whose windows are all there but whose result is not."""
        for item, windows in list(self._spool.waiting().items()):
            if len(windows) == self._layout.cut.count(self._recordings[item].samples):
                self._join(item, windows)
        self._spool.flush()

    def _finish(self, item: int, result: Fields, timing: Timing) -> None:
        self._spool.finish(item, result, timings(timing))
        self.done += 1

    def failed(self, recording: Recording, trouble: RecordingError) -> Fields:
        """The result of a recording with nothing to show."""
        return record(recording, trouble)

    def alone(self, recording: Recording, outcome: Outcome) -> Fields:
        """The result of a recording by its only window."""
        decoded = outcome.decoded or (decoded_of(outcome.said, setup=self._setup) if outcome.said else SILENCE)
        return record(recording, decoded, seconds=outcome.samples / self._setup.source.rate)

    def joined(self, item: int, entries: Sequence[Fields], *, samples: int) -> Fields:
        """The result of a recording by what was kept of its windows; ``samples`` were heard."""
        decoded = self._decoded(item, entries, samples=samples)
        return record(self._recordings[item], decoded, seconds=samples / self._setup.source.rate)

    def quiet_row(self, rows: Rows, head: Head) -> Rows:
        """What stands for a frame of a window that is all silence, [1, columns], beside ``rows`` of others."""
        return silence.blank_rows(1, vocab=rows.shape[1], blank=head.blank)

    def _entry(self, outcome: Outcome, head: Head) -> Fields:
        """What the spool keeps of one window of several; its frames go to their own file first."""
        window = self._layout.cut.window(self._recordings[outcome.item].samples, outcome.window)
        if outcome.rows is not None:
            self.put_rows(outcome, outcome.rows, at=window.keep_from, head=head)
        entry: Fields = {
            "samples": window.first + outcome.samples,
            "timing": asdict(outcome.timing),
            "head": asdict(head),
            "frames": window.keep_from + (0 if outcome.rows is None else len(outcome.rows)),
        }
        if outcome.trouble:
            entry["trouble"] = [outcome.trouble.status, outcome.trouble.name, outcome.trouble.message]
        if outcome.said is not None:
            first = self._recordings[outcome.item].first
            entry["said"] = [asdict(s) for s in kept(outcome.said, window, first=first, setup=self._setup)]
        return entry

    def put_rows(self, outcome: Outcome, rows: Rows, *, at: int, head: Head) -> None:
        """Put the rows of one window, whose first frame is ``at``, where ``joined`` finds them."""
        most = -(-self._recordings[outcome.item].samples // self._layout.cut.stride) + 1
        quiet = self.quiet_row(rows, head)
        self._spool.put_rows(outcome.item, rows, at=at, frames=most, blank=head.blank, quiet=quiet)

    def _join(self, item: int, windows: Mapping[int, Fields]) -> None:
        """One recording from all of its windows. The first window's trouble is the recording's."""
        entries = [windows[index] for index in sorted(windows)]
        timing = Timing(attempts=max(e["timing"]["attempts"] for e in entries))
        for stage in ("decode", "resample", "infer", "postprocess"):
            setattr(timing, stage, sum(e["timing"][stage] for e in entries))
        troubles = [RecordingError(*e["trouble"]) for e in entries if "trouble" in e]
        samples = max(e["samples"] for e in entries)
        if troubles:
            result = self.failed(self._recordings[item], troubles[0])
        else:
            result = self.joined(item, entries, samples=samples)
        self._finish(item, result, timing)

    def _decoded(self, item: int, entries: Sequence[Fields], *, samples: int) -> Decoded:
        if any("said" in entry for entry in entries):
            said = tuple(Said(**s) for entry in entries for s in entry.get("said", ()))
            return decoded_of(said, setup=self._setup)
        rows = self._spool.rows(item)
        if rows is None:
            return SILENCE
        head = entries[0]["head"]
        alphabet = ctc.load_alphabet(self._setup, vocab=head["vocab"], blank=head["blank"])
        first = self._recordings[item].first
        frames = max(entry["frames"] for entry in entries)
        return ctc.text_of(rows[:frames], setup=self._setup, alphabet=alphabet, first=first, last=first + samples)


SILENCE = Decoded(text="", confidence=None)


def record(recording: Recording, result: Decoded | RecordingError, *, seconds: float | None = None) -> Fields:
    """One line of transcripts.jsonl."""
    header = recording.header
    known = None if header is None or recording.samples == 0 else header.duration_s
    trouble = result if isinstance(result, RecordingError) else None
    decoded = SILENCE if isinstance(result, RecordingError) else result
    duration = seconds if seconds is not None else known
    return {
        **recording.fields(),
        "status": trouble.status if trouble else "ok" if decoded.text else "empty",
        "text": decoded.text,
        **({"language": decoded.language} if decoded.language else {}),
        "confidence": None if decoded.confidence is None else round(decoded.confidence, 3),
        "words": [_word(word) for word in decoded.words],
        "duration_s": None if duration is None else round(duration, 3),
        "error": {"class": trouble.name, "message": trouble.message} if trouble else None,
    }


def _word(word: Word) -> Fields:
    fields: Fields = {"word": word.word, "start": word.start, "end": word.end, "confidence": round(word.confidence, 3)}
    if word.chars:
        fields["chars"] = [{"char": c.char, "start": c.start, "end": c.end} for c in word.chars]
    return fields


def timings(timing: Timing) -> Fields:
    """One line of timing.jsonl, without the recording's name."""
    stages = ("decode", "resample", "infer", "postprocess")
    return {
        "attempts": timing.attempts,
        "timing_ms": {stage: round(1000 * getattr(timing, stage), 1) for stage in stages},
    }
