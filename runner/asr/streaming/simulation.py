"""The worker of a job that streams: each recording comes in chunk by chunk, as if it were live."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runner.asr import audio
from runner.asr.ctc import Ctc
from runner.asr.decode import Decoded
from runner.asr.halving import Halving
from runner.asr.pieces import Answer, Outcome, Piece, Setup, Timing
from runner.asr.streaming.measure import Histogram, Measure, as_json
from runner.asr.streaming.partial import Final, Partial
from runner.asr.streaming.session import Session
from runner.asr.streaming.settings import Settings
from runner.asr.trouble import RecordingError
from runner.asr.words import Word
from runner.precision import choose
from runner.schema.errors import JobError

Fields = dict[str, Any]
Samples = NDArray[np.float32]
READ_S = 60  # of a recording in memory at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Streamed(Outcome):
    """What was heard of one recording as a stream."""

    segments: list[Fields]  # its utterances
    stream: Fields  # what ``Measure`` counted
    clocks: Fields  # milliseconds of computing -> how often, by `window_ms` and `final_ms`


@dataclass(kw_only=True)
class _Run:
    """One recording on its way through a session."""

    session: Session
    timing: Timing = field(default_factory=Timing)
    measure: Measure = field(default_factory=Measure)
    finals: list[Final] = field(default_factory=list)
    window_ms: Histogram = field(default_factory=Counter)
    final_ms: Histogram = field(default_factory=Counter)
    samples: int = 0

    def take(self, partial: Partial) -> None:
        self.measure.take(partial)
        self.finals += partial.finals


class Simulation:
    """Built once per process, called once per deal. One recording at a time, so that computing times mean something."""

    def __init__(self, settings: Settings, setup: Setup) -> None:
        torch.set_num_threads(setup.threads)
        self._settings, self._setup = settings, setup
        precision = choose(setup.precision, device=setup.device)
        self._engine = Ctc(setup, dtype=precision.dtype)
        self._halving = Halving(self._engine.compute, most=setup.most)
        self._about = {"precision": precision.name, "precision_why": precision.why, **self._engine.about}

    def __call__(self, item: Sequence[tuple[Piece, ...]]) -> Answer:
        again, halvings = self._engine.again, self._halving.count
        outcomes = tuple(self._outcome(piece) for batch in item for piece in batch)
        return Answer(
            outcomes=outcomes,
            about=self._about,
            blank=self._engine.blank,
            vocab=self._engine.vocab,
            padded=0,
            again=self._engine.again - again,
            halvings=self._halving.count - halvings,
            most=self._halving.most,
        )

    def _outcome(self, piece: Piece) -> Outcome:
        run = _Run(session=Session(self._engine, setup=self._setup, settings=self._settings))
        try:
            self._stream(run, piece)
        except RecordingError as error:
            trouble = error
        except JobError as error:
            if error.failure != "NaN":
                raise  # of the model, not of this recording
            trouble = RecordingError("failed", error.failure, str(error))
        except Exception as error:  # a codec's surprise is this recording's trouble, not the job's
            trouble = RecordingError("failed", type(error).__name__, str(error)[:300])
        else:
            return _streamed(run, piece, rate=self._setup.source.rate)
        return Outcome(item=piece.item, window=piece.window, samples=0, trouble=trouble, timing=run.timing)

    def _stream(self, run: _Run, piece: Piece) -> None:
        for chunk in self._chunks(run, piece):
            run.session.push(chunk)
            self._settle(run)
        if run.samples < self._setup.source.receptive:
            least = f"{1000 * self._setup.source.receptive / self._setup.source.rate:.0f} ms"
            raise RecordingError("too_short", "too_short", f"{run.samples} samples; the model needs {least}")
        run.session.close()
        self._settle(run)

    def _chunks(self, run: _Run, piece: Piece) -> Iterator[Samples]:
        """The recording's samples, a chunk at a time: with each one the session computes at most one window."""
        size = self._settings.chunk * self._settings.stride
        read = -(-READ_S * self._settings.rate // size) * size
        for first in range(piece.first, piece.last, read):
            heard = audio.read(
                piece.path,
                header=piece.header,
                first=first,
                last=min(first + read, piece.last),
                rate=self._setup.source.rate,
                channel=piece.channel,
            )
            run.timing.decode += heard.decode_s
            run.timing.resample += heard.resample_s
            run.samples += len(heard.samples)
            yield from (heard.samples[at : at + size] for at in range(0, len(heard.samples), size))

    def _settle(self, run: _Run) -> None:
        """Compute what the session asks for, and see what it says then."""
        began = time.perf_counter()
        computed = 0.0
        while (window := run.session.request()) is not None:
            histogram = run.final_ms if run.session.reading_final else run.window_ms
            start = time.perf_counter()
            (rows,) = self._halving([window])
            if isinstance(rows, RecordingError):
                raise rows
            spent = time.perf_counter() - start
            run.session.answer(rows)
            histogram[round(1000 * (time.perf_counter() - start))] += 1
            computed += spent
        run.take(run.session.take())
        run.timing.infer += computed
        run.timing.postprocess += time.perf_counter() - began - computed


def _streamed(run: _Run, piece: Piece, *, rate: int) -> Streamed:
    offset = piece.first / rate
    return Streamed(
        item=piece.item,
        window=piece.window,
        samples=run.samples,
        decoded=_whole(run.finals, offset),
        timing=run.timing,
        segments=[_segment(final, offset) for final in run.finals],
        stream=run.measure.fields(),
        clocks={"window_ms": as_json(run.window_ms), "final_ms": as_json(run.final_ms)},
    )


def _whole(finals: Sequence[Final], offset: float) -> Decoded:
    """The recording from its utterances, whose confidence counts by their words."""
    spoken = [final.final for final in finals if final.final.confidence is not None]
    sure = [(final.confidence or 0.0) for final in spoken]
    return Decoded(
        text=" ".join(final.text for final in spoken),
        confidence=float(np.average(sure, weights=[len(final.text.split()) for final in spoken])) if spoken else None,
        words=tuple(_shifted(word, offset) for final in spoken for word in final.words),
    )


def _segment(final: Final, offset: float) -> Fields:
    return {
        "start": round(final.start + offset, 3),
        "end": round(final.end + offset, 3),
        "ended_by": final.ended_by,
        "committed": " ".join(word.word for word in final.committed),
        "text": final.final.text,
    }


def _shifted(word: Word, seconds: float) -> Word:
    """The session's clock begins with the recording's part, the result's with the file."""

    def moved(time_s: float) -> float:
        return round(time_s + seconds, 3)

    chars = tuple(replace(char, start=moved(char.start), end=moved(char.end)) for char in word.chars)
    return replace(word, start=moved(word.start), end=moved(word.end), chars=chars)
