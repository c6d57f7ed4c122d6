"""CTC models in the worker: log-probabilities, silence made blank, text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from runner.asr import alphabet, silence
from runner.asr.acoustic import Acoustic
from runner.asr.alphabet import Alphabet
from runner.asr.decode import Decoded, decode
from runner.asr.doubt import doubtful
from runner.asr.language import fusion
from runner.asr.pieces import Outcome, Piece, Setup

Samples = NDArray[np.float32]
Rows = NDArray[np.float32]  # [frames, vocab], log-probabilities


class Ctc:
    """The engine of CTC families."""

    def __init__(self, setup: Setup, *, dtype: torch.dtype) -> None:
        self._setup = setup
        self._acoustic = Acoustic(setup.source, device=setup.device, dtype=dtype)
        self._exact: Acoustic | None = None
        self.again = 0
        self.vocab = self._acoustic.vocab_size
        self.alphabet = load_alphabet(setup, vocab=self.vocab, blank=self._acoustic.blank)
        self.blank = self.alphabet.blank
        self.delimiter = min((id_ for id_ in self.alphabet.breaks if not self.alphabet.texts[id_]), default=None)
        self.about = self._acoustic.about

    def compute(self, windows: Sequence[Samples]) -> list[Rows]:
        """Log-probabilities of each window; in fp32 where a faster format leaves the text in doubt."""
        found = self._acoustic.log_probs(windows)
        if self._acoustic.dtype == torch.float32:
            return found
        doubts = [at for at, rows in enumerate(found) if doubtful(rows, blank=self.blank)]
        for at, rows in zip(doubts, self._exactly([windows[at] for at in doubts]), strict=True):
            found[at] = rows
        self.again += len(doubts)
        return found

    def _exactly(self, windows: Sequence[Samples]) -> list[Rows]:
        """The same in fp32. The model is loaded a second time when it is first needed, and kept."""
        if not windows:
            return []
        if self._exact is None:
            self._exact = Acoustic(self._setup.source, device=self._setup.device, dtype=torch.float32)
        return self._exact.log_probs(windows)

    def finish(self, outcome: Outcome, piece: Piece, result: Rows, loud: NDArray[np.bool_]) -> Outcome:
        """The text of a recording's only window; the kept frames of one of several."""
        heard = loud[np.minimum(np.arange(len(result)), len(loud) - 1)]  # a mel front end may give a frame more
        silence.hush(result, heard, blank=self.blank, delimiter=self.delimiter)
        if not piece.alone:
            return replace(outcome, rows=result[piece.keep_from : piece.keep_to])
        decoded = text_of(
            result, setup=self._setup, alphabet=self.alphabet, first=piece.first, last=piece.first + outcome.samples
        )
        return replace(outcome, decoded=decoded)

    def unheard(self, outcome: Outcome, piece: Piece) -> Outcome:
        """A window that is all silence; between other windows it still keeps words apart."""
        if piece.alone:
            return outcome
        row = silence.blank_rows(1, vocab=self.vocab, blank=self.blank)
        silence.hush(row, np.zeros(1, np.bool_), blank=self.blank, delimiter=self.delimiter)
        return replace(outcome, rows=row)


def load_alphabet(setup: Setup, *, vocab: int, blank: int | None) -> Alphabet:
    """The alphabet of the setup's model."""
    return alphabet.load(setup.source.folder, vocab_size=vocab, blank=blank, language=setup.source.adapter)


def text_of(rows: Rows, *, setup: Setup, alphabet: Alphabet, first: int, last: int) -> Decoded:
    """What the frames of samples ``first`` to ``last`` of a file say, timed on the file's clock."""
    rate = setup.source.rate
    return decode(
        rows,
        alphabet=alphabet,
        beam_size=setup.beam_size,
        fusion=None if setup.wording is None else fusion.load(setup.wording, alphabet),
        calibration=setup.calibration,
        frame_s=setup.source.stride / rate,
        offset_s=first / rate,
        end_s=last / rate,
        timestamps=setup.timestamps,
    )
