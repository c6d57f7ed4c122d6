"""One stream: sound in, committed words, a tail that may change, and a final text of each utterance out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runner.asr import ctc, silence
from runner.asr.alphabet import Alphabet
from runner.asr.decode import decode
from runner.asr.pieces import Setup
from runner.asr.streaming.buffer import Buffer
from runner.asr.streaming.partial import End, Final, Partial
from runner.asr.streaming.settings import Settings
from runner.asr.streaming.settled import Settled
from runner.asr.windows import Window
from runner.asr.words import Word
from runner.schema.errors import JobError

Samples = NDArray[np.float32]
Rows = NDArray[np.float32]  # [frames, vocab], log-probabilities


class Engine(Protocol):
    """A CTC model: ``runner.asr.ctc.Ctc``. Sessions share one."""

    alphabet: Alphabet
    blank: int
    vocab: int
    delimiter: int | None

    def compute(self, windows: Sequence[Samples]) -> list[Rows]:
        """Log-probabilities of each window."""
        ...


@dataclass(kw_only=True)
class _Utterance:
    """The one at hand."""

    first: int  # frame
    rows: Rows  # its settled frames
    words: list[Word] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A window that waits for its frames."""

    window: Window
    samples: Samples
    loud: NDArray[np.bool_]  # [frames]
    ending: tuple[_Utterance, End] | None = None  # the utterance of which it is the final reading


class Session:
    """A stream of samples at the model's rate, mono.

    ``feed`` and ``finish`` do all there is to do. Who computes for several streams at once takes them apart: ``push``
    or ``close``, then ``request`` and ``answer`` until nothing is asked for, then ``take`` (see ``Batcher``).
    """

    def __init__(self, engine: Engine, *, setup: Setup, settings: Settings) -> None:
        self._engine, self._setup, self._how = engine, setup, settings
        self._buffer = Buffer()
        self._settled = Settled(
            engine.alphabet,
            word_gap=settings.word_gap,
            frame_s=setup.source.stride / setup.source.rate,
            calibration=setup.calibration,
        )
        self._done = 0  # frames settled
        self._closed = False
        self._quiet = True  # whether the last settled frame was
        self._guess = self._blank(0)
        self._utterance = _Utterance(first=0, rows=self._blank(0))
        self._asked: _Asked | None = None
        self._heard = 0.0
        self._committed: list[Word] = []
        self._finals: list[Final] = []
        self.error: JobError | None = None  # after which the stream is at its end

    def feed(self, samples: Samples) -> Partial:
        """Hear ``samples``, any number of them, [samples]. Raises JobError (NaN) when the model gives no numbers."""
        self.push(samples)
        self._settle()
        return self.take()

    def finish(self) -> Partial:
        """The stream is at its end: the rest, committed, and the final text of the last utterance."""
        self.close()
        self._settle()
        return self.take()

    def push(self, samples: Samples) -> None:
        """Keep ``samples`` until they are asked for."""
        assert not self._closed, "the stream was closed"
        self._buffer.append(samples)

    def close(self) -> None:
        """There will be no further samples."""
        self._closed = True

    @property
    def reading_final(self) -> bool:
        """Whether the window asked for is an utterance's final reading; it may be much longer than the others."""
        return self._asked is not None and self._asked.ending is not None

    def request(self) -> Samples | None:
        """The window to compute next; None when more must be heard first. The same until it is answered."""
        while self._asked is None and self.error is None:
            window = self._next()
            if window is None:
                return None
            asked = self._ask(window)
            heard = asked.loud[window.keep_from - window.first // self._how.stride :]
            if heard.any() and len(asked.samples) >= self._setup.source.receptive:
                self._asked = asked
            else:
                self._settle_chunk(asked, self._blank(len(asked.loud)))
        return self._asked.samples if self._asked else None

    def answer(self, rows: Rows) -> None:
        """The model's output for the window that was asked for. What is wrong with it is raised by ``take``."""
        assert self._asked is not None, "nothing was asked for"
        asked, self._asked = self._asked, None
        try:
            _check(rows)
            rows = rows.copy()
            if asked.ending is None:
                self._settle_chunk(asked, rows)
            else:
                self._read_final(asked, rows, *asked.ending)
        except JobError as error:
            self.error = error

    def take(self) -> Partial:
        """What came since the last call. Raises the stream's error."""
        if self.error is not None:
            raise self.error
        partial = Partial(
            heard=self._heard,
            committed=tuple(self._committed),
            tail=self._settled.tail(self._guess),
            finals=tuple(self._finals),
        )
        self._committed, self._finals = [], []
        return partial

    def _settle(self) -> None:
        while (samples := self.request()) is not None:
            self.answer(self._engine.compute([samples])[0])

    def _next(self) -> Window | None:
        """The next chunk with its surroundings; the last one takes all that is left."""
        how = self._how
        first = max(0, self._done - how.left) * how.stride
        last = (self._done + how.chunk + how.lookahead) * how.stride
        if last <= self._buffer.end:
            return Window(first=first, last=last, keep_from=self._done, keep_to=self._done + how.chunk)
        if self._closed and self._done * how.stride < self._buffer.end:
            return Window(first=first, last=self._buffer.end, keep_from=self._done, keep_to=None)
        return None

    def _ask(self, window: Window, ending: tuple[_Utterance, End] | None = None) -> _Asked:
        samples = self._buffer.stretch(window.first, window.last)
        loud = silence.loud(samples, stride=self._how.stride, rate=self._how.rate, floor_db=self._setup.silence_db)
        return _Asked(window=window, samples=samples, loud=loud, ending=ending)

    def _blank(self, frames: int) -> Rows:
        return silence.blank_rows(frames, vocab=self._engine.vocab, blank=self._engine.blank)

    def _settle_chunk(self, asked: _Asked, rows: Rows) -> None:
        window, stride = asked.window, self._how.stride
        skipped = window.keep_from - window.first // stride
        loud = asked.loud[np.minimum(np.arange(len(rows)), len(asked.loud) - 1)][skipped:]
        rows = rows[skipped:]
        self._hush(rows, loud)
        to = -(-window.last // stride) if window.keep_to is None else window.keep_to
        count = to - window.keep_from
        if len(rows) < count:  # the stream's last frames see too few samples to be computed
            rows = np.concatenate((rows, self._blank(count - len(rows))))
        self._quiet = not loud[:count][-1:].any()
        self._done = to
        self._heard = self._how.seconds(-(-window.last // stride))
        self._guess = rows[count:]
        self._utterance.rows = np.concatenate((self._utterance.rows, rows[:count]))
        self._commit(self._settled.add(rows[:count]))
        if window.keep_to is None:
            self._commit(self._settled.close())
            self._end("close", at=to)
        else:
            self._end_if_due()
        self._forget()

    def _hush(self, rows: Rows, loud: NDArray[np.bool_]) -> None:
        """Blank where nothing can be heard, and a word delimiter where a pause begins."""
        quiet = ~loud
        rows[quiet] = silence.blank_rows(1, vocab=self._engine.vocab, blank=self._engine.blank)
        if self._engine.delimiter is not None:
            begins = quiet & ~np.concatenate(([self._quiet], quiet[:-1]))
            rows[begins, self._engine.blank] = silence.NEVER
            rows[begins, self._engine.delimiter] = 0.0

    def _commit(self, words: tuple[Word, ...]) -> None:
        self._committed += words
        self._utterance.words += words

    def _end_if_due(self) -> None:
        how, utterance, settled = self._how, self._utterance, self._settled
        if not utterance.words and not settled.waiting:
            first = max(utterance.first, self._done - how.margin)
            self._utterance = _Utterance(first=first, rows=utterance.rows[first - utterance.first :])
        elif not settled.waiting and self._done - settled.spoken >= how.after_text:
            self._end("pause", at=settled.gap_middle)
        elif self._done - utterance.first >= how.longest:
            if not utterance.words:  # one word, as long as an utterance may be
                self._commit(settled.close())
            self._end("longest", at=settled.gap_middle)

    def _end(self, by: End, *, at: int) -> None:
        """The utterance at hand ends before frame ``at``, in which no word lies; the next one begins there."""
        ended, how = self._utterance, self._how
        self._utterance = _Utterance(first=at, rows=ended.rows[at - ended.first :])
        if not ended.words:
            return
        spoke = round(ended.words[0].start * how.rate / how.stride)
        first = max(0, ended.first - how.left, spoke - how.margin)
        last = min(at + how.lookahead, self._settled.spoken + how.margin)
        keep_from, keep_to = max(ended.first, first), min(at, last)
        end = min(last * how.stride, self._buffer.end)
        window = Window(first=first * how.stride, last=end, keep_from=keep_from, keep_to=keep_to)
        ended.rows = ended.rows[keep_from - ended.first : keep_to - ended.first]
        if how.refine:
            self._asked = self._ask(window, ending=(ended, by))
        else:
            self._conclude(ended, by, window=window, rows=ended.rows)

    def _read_final(self, asked: _Asked, rows: Rows, ended: _Utterance, by: End) -> None:
        before = asked.window.first // self._how.stride
        loud = asked.loud[np.minimum(np.arange(len(rows)), len(asked.loud) - 1)]
        silence.hush(rows, loud, blank=self._engine.blank, delimiter=self._engine.delimiter)
        assert asked.window.keep_to is not None
        kept = rows[asked.window.keep_from - before : asked.window.keep_to - before]
        # models trained on short clips read long speech worse: of 1,400 words in eight joined files (of voices new to
        # the quickstart's first model) these readings had 5.4% wrong, the committed words 3.9%, the surer of both 4.1%
        surer = max(kept, ended.rows, key=self._certainty)
        self._conclude(ended, by, window=asked.window, rows=surer)

    def _certainty(self, rows: Rows) -> float:
        """The model's own confidence in what ``rows`` say."""
        alphabet = self._engine.alphabet
        return decode(rows, alphabet=alphabet, frame_s=1.0, timestamps="none").confidence or 0.0

    def _conclude(self, ended: _Utterance, by: End, *, window: Window, rows: Rows) -> None:
        assert window.keep_to is not None
        first, last = window.keep_from * self._how.stride, min(window.keep_to * self._how.stride, self._buffer.end)
        final = ctc.text_of(rows, setup=self._setup, alphabet=self._engine.alphabet, first=first, last=last)
        self._finals.append(
            Final(
                start=round(first / self._how.rate, 3),
                end=round(last / self._how.rate, 3),
                ended_by=by,
                decided=self._heard,
                committed=tuple(ended.words),
                final=final,
            )
        )

    def _forget(self) -> None:
        needed = min(self._done, self._utterance.first) if self._how.refine else self._done
        self._buffer.forget(max(0, needed - self._how.left) * self._how.stride)


def _check(rows: Rows) -> None:
    if not np.isfinite(rows.max(axis=1)).all():
        raise JobError("the model's output holds NaN or no probability at all; try precision: fp32", failure="NaN")
