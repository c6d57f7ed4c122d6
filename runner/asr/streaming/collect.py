"""Keeps what a stream said of each recording: its row of the transcripts with more beside it, and computing times."""

from __future__ import annotations

from runner.asr.collector import Collector, record, timings
from runner.asr.pieces import Answer
from runner.asr.streaming.simulation import Streamed


class StreamCollector(Collector):
    """Recordings come whole, so there is nothing to join.

    A row of the transcripts gets `segments` (the utterances: what was committed, and the final text) and `stream`
    (``Measure.fields``); a row of the timings `window_ms` and `final_ms`, milliseconds of computing by how often.
    """

    def take(self, answer: Answer) -> None:
        """Keep one worker's answer."""
        for outcome in answer.outcomes:
            if self._spool.has(outcome.item, outcome.window):
                continue
            recording = self._recordings[outcome.item]
            times = timings(outcome.timing)
            if isinstance(outcome, Streamed):
                assert outcome.decoded is not None, "a stream has a text, be it empty"
                found = record(recording, outcome.decoded, seconds=outcome.samples / self._setup.source.rate)
                found |= {"segments": outcome.segments, "stream": outcome.stream}
                times |= outcome.clocks
            else:
                assert outcome.trouble is not None, "what is no stream went wrong"
                found = record(recording, outcome.trouble)
            self._spool.finish(outcome.item, found, times)
            self.done += 1
        self._spool.flush()
