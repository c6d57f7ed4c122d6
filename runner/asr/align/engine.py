"""Alignment in the worker: a recording's only window at once; of one of several, its frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runner.asr import portuguese, silence
from runner.asr.align.text import Speller
from runner.asr.align.words import Clock, Rows, aligned, quiet_row
from runner.asr.alphabet import Alphabet
from runner.asr.ctc import Ctc
from runner.asr.pieces import Outcome, Piece, Setup
from runner.asr.trouble import RecordingError
from runner.schema.errors import JobError

Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is said for a text, and how fine the times are."""

    text: portuguese.Settings | None  # None: digits and other unknown characters are wildcards
    chars: bool


class Texts:
    """Aligns rows of one model with texts."""

    def __init__(self, setup: Setup, wanted: Wanted, alphabet: Alphabet) -> None:
        self._setup, self._wanted, self._blank = setup, wanted, alphabet.blank
        self._say = None if wanted.text is None else portuguese.normaliser(wanted.text)
        self.speller = Speller(alphabet)
        self.quiet = quiet_row(
            vocab=len(alphabet.texts), blank=alphabet.blank, delimiter=self.speller.delimiter, never=silence.NEVER
        )

    def result(self, rows: Rows, text: str | None, *, first: int, samples: int) -> Fields | RecordingError:
        """`aligned` for the samples from ``first`` on; what is wrong with one recording is its trouble."""
        rate = self._setup.source.rate
        clock = Clock(frame_s=self._setup.source.stride / rate, offset_s=first / rate, end_s=(first + samples) / rate)
        try:
            return aligned(
                rows,
                text,
                speller=self.speller,
                blank=self._blank,
                say=self._say,
                clock=clock,
                chars=self._wanted.chars,
            )
        except RecordingError as trouble:
            return trouble
        except JobError as error:
            return RecordingError("failed", error.failure, str(error))


class Aligner(Ctc):
    """The engine of alignment."""

    def __init__(self, setup: Setup, *, dtype: torch.dtype, wanted: Wanted) -> None:
        super().__init__(setup, dtype=dtype)
        self._texts = Texts(setup, wanted, self.alphabet)

    def finish(self, outcome: Outcome, piece: Piece, result: Rows, loud: NDArray[np.bool_]) -> Outcome:
        """The aligned words of a recording's only window; the kept frames of one of several."""
        heard = loud[np.minimum(np.arange(len(result)), len(loud) - 1)]  # a mel front end may give a frame more
        result[~heard] = self._texts.quiet
        if not piece.alone:
            return replace(outcome, rows=result[piece.keep_from : piece.keep_to])
        made = self._texts.result(result, piece.text, first=piece.first, samples=outcome.samples)
        return replace(outcome, trouble=made) if isinstance(made, RecordingError) else replace(outcome, made=made)

    def unheard(self, outcome: Outcome, piece: Piece) -> Outcome:
        """Nothing is known of a window that is all silence."""
        return outcome
