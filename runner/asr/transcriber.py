"""The worker: decodes files ahead in threads, runs the model, and turns its output into words."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from runner.asr import audio, silence
from runner.asr.ctc import Ctc
from runner.asr.halving import Halving
from runner.asr.pieces import Answer, Outcome, Piece, Setup, Timing
from runner.asr.trouble import RecordingError
from runner.asr.whisper.engine import Whisper
from runner.precision import choose
from runner.schema.errors import JobError

Samples = NDArray[np.float32]
Batch = tuple[Piece, ...]

AHEAD = 2  # batches decoded ahead of the one in the model


class Engine(Protocol):
    """A model and what makes words of its output."""

    about: dict[str, str]
    blank: int
    vocab: int
    again: int  # windows that were computed a second time, in fp32

    def compute(self, windows: Sequence[Samples]) -> list[Any]:
        """The model's output for each window."""
        ...

    def finish(self, outcome: Outcome, piece: Piece, result: Any, loud: NDArray[np.bool_]) -> Outcome:
        """``outcome`` with what the model's output says; ``loud`` is per frame whether anything can be heard."""
        ...

    def unheard(self, outcome: Outcome, piece: Piece) -> Outcome:
        """``outcome`` of a window in which nothing can be heard."""
        ...


MakeEngine = Callable[..., Engine]  # (setup, dtype=...), picklable
ENGINES: dict[str, MakeEngine] = {"ctc": Ctc, "seq2seq": Whisper}


class Transcriber:
    """Built once per process, called once per deal: a few batches in a row, so that decoding runs ahead.

    ``engine`` makes something else than a transcript of what the model gives.
    """

    def __init__(self, setup: Setup, *, engine: MakeEngine | None = None) -> None:
        torch.set_num_threads(setup.threads)
        self.setup = setup
        precision = choose(setup.precision, device=setup.device)
        self.engine: Engine = (engine or ENGINES[setup.task])(setup, dtype=precision.dtype)
        self.halving = Halving(self.engine.compute, most=setup.most)
        self.about = {"precision": precision.name, "precision_why": precision.why, **self.engine.about}
        self._readers = max(1, setup.threads if setup.device == "cuda" else setup.threads // 2)

    def __call__(self, item: Sequence[Batch]) -> Answer:
        outcomes: list[Outcome] = []
        padded, halvings, again = 0, self.halving.count, self.engine.again
        with ThreadPoolExecutor(max_workers=self._readers) as pool:
            for batch, heard in self._decoded(item, pool):
                made, computed = self._batch(batch, heard)
                outcomes += made
                padded += computed
        return Answer(
            outcomes=tuple(outcomes),
            about=self.about,
            blank=self.engine.blank,
            vocab=self.engine.vocab,
            padded=padded,
            again=self.engine.again - again,
            halvings=self.halving.count - halvings,
            most=self.halving.most,
        )

    def _decoded(
        self, deal: Sequence[Batch], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[Batch, list[audio.Heard | RecordingError]]]:
        """Each batch with its sound; at most ``AHEAD`` further batches lie decoded in memory."""
        waiting: deque[tuple[Batch, list[Future[audio.Heard | RecordingError]]]] = deque()
        for batch in deal:
            waiting.append((batch, [pool.submit(self._read, piece) for piece in batch]))
            if len(waiting) > AHEAD:
                first, futures = waiting.popleft()
                yield first, [future.result() for future in futures]
        while waiting:
            first, futures = waiting.popleft()
            yield first, [future.result() for future in futures]

    def _read(self, piece: Piece) -> audio.Heard | RecordingError:
        source = self.setup.source
        try:
            heard = audio.read(
                piece.path,
                header=piece.header,
                first=piece.first,
                last=piece.last,
                rate=source.rate,
                channel=piece.channel,
            )
        except RecordingError as trouble:
            return trouble
        except Exception as error:  # a codec's surprise is this recording's trouble, not the job's
            return RecordingError("failed", type(error).__name__, str(error)[:300])
        if piece.alone and len(heard.samples) < source.receptive:
            least = f"{1000 * source.receptive / source.rate:.0f} ms"
            return RecordingError("too_short", "too_short", f"{len(heard.samples)} samples; the model needs {least}")
        return heard

    def _batch(self, batch: Batch, heard: list[audio.Heard | RecordingError]) -> tuple[list[Outcome], int]:
        """Outcomes of one batch, and the padded samples that were computed."""
        loud = {at: self._loud(one) for at, one in enumerate(heard) if isinstance(one, audio.Heard)}
        spoken = [
            at
            for at, one in enumerate(heard)
            if isinstance(one, audio.Heard) and loud[at].any() and len(one.samples) >= self.setup.source.receptive
        ]
        windows = [one.samples for at in spoken if isinstance(one := heard[at], audio.Heard)]
        began = time.perf_counter()
        results = dict(zip(spoken, self.halving(windows), strict=True))
        spent = (time.perf_counter() - began) / max(1, sum(map(len, windows)))
        outcomes = []
        for at, (piece, one) in enumerate(zip(batch, heard, strict=True)):
            if isinstance(one, RecordingError):
                outcomes.append(Outcome(item=piece.item, window=piece.window, samples=0, trouble=one))
                continue
            timing = Timing(decode=one.decode_s, resample=one.resample_s)
            outcome = Outcome(item=piece.item, window=piece.window, samples=len(one.samples), timing=timing)
            if at in results:
                timing.infer = spent * len(one.samples)
                outcome = self._finished(outcome, piece, results[at], loud[at])
            elif len(one.samples):
                outcome = self.engine.unheard(outcome, piece)
            outcomes.append(outcome)
        computed = sum(map(len, windows))
        if self.about["layout"] == "padded":
            computed = max(map(len, windows), default=0) * len(windows)
        return outcomes, computed

    def _loud(self, heard: audio.Heard) -> NDArray[np.bool_]:
        source = self.setup.source
        if not len(heard.samples):
            return np.zeros(0, np.bool_)
        return silence.loud(heard.samples, stride=source.stride, rate=source.rate, floor_db=self.setup.silence_db)

    def _finished(self, outcome: Outcome, piece: Piece, result: Any, loud: NDArray[np.bool_]) -> Outcome:
        if isinstance(result, RecordingError):
            return replace(outcome, trouble=result)
        began = time.perf_counter()
        try:
            outcome = self.engine.finish(outcome, piece, result, loud)
        except JobError as error:  # NaN in this window's output
            outcome = replace(outcome, trouble=RecordingError("failed", error.failure, str(error)))
        outcome.timing.postprocess = time.perf_counter() - began
        return outcome
