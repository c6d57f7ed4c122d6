"""Recordings with aligned words, from what the workers say of their windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.asr.align.engine import Texts, Wanted
from runner.asr.align.words import Rows, unheard
from runner.asr.collector import SILENCE, Collector, Head, record
from runner.asr.ctc import load_alphabet
from runner.asr.pieces import Outcome
from runner.asr.recordings import Recording
from runner.asr.trouble import RecordingError

Fields = dict[str, Any]


class AlignCollector(Collector):
    """Lines of alignments.jsonl."""

    def __init__(self, *args: Any, wanted: Wanted) -> None:
        super().__init__(*args)
        self._wanted = wanted
        self._texts: Texts | None = None

    def failed(self, recording: Recording, trouble: RecordingError) -> Fields:
        """The result of a recording with nothing to show."""
        return {**record(recording, trouble), "score": None}

    def alone(self, recording: Recording, outcome: Outcome) -> Fields:
        """What the worker made of the only window."""
        return self._result(recording, outcome.made or _silent(recording), samples=outcome.samples)

    def joined(self, item: int, entries: Sequence[Fields], *, samples: int) -> Fields:
        """All frames of a recording, aligned with its text."""
        recording = self._recordings[item]
        rows = self._spool.rows(item)
        if rows is None:
            return self._result(recording, _silent(recording), samples=samples)
        frames = max(entry["frames"] for entry in entries)
        texts = self._aligner(Head(**entries[0]["head"]))
        made = texts.result(rows[:frames], recording.clip.text, first=recording.first, samples=samples)
        return self._result(recording, made, samples=samples)

    def quiet_row(self, rows: Rows, head: Head) -> Rows:
        """Silence may hold the end of a word wherever the text has one."""
        return self._aligner(head).quiet

    def _aligner(self, head: Head) -> Texts:
        if self._texts is None:
            alphabet = load_alphabet(self._setup, vocab=head.vocab, blank=head.blank)
            self._texts = Texts(self._setup, self._wanted, alphabet)
        return self._texts

    def _result(self, recording: Recording, made: Fields | RecordingError, *, samples: int) -> Fields:
        if isinstance(made, RecordingError):
            return self.failed(recording, made)
        base = record(recording, SILENCE, seconds=samples / self._setup.source.rate)
        return {**base, **made, "status": "ok" if made["words"] else "empty"}


def _silent(recording: Recording) -> Fields | RecordingError:
    try:
        return unheard(recording.clip.text)
    except RecordingError as trouble:
        return trouble
