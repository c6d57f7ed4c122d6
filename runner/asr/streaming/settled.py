"""Frames that will not be computed again, and which of their words have ended."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runner.asr.alphabet import Alphabet
from runner.asr.calibration import Calibration
from runner.asr.decode import decode, greedy
from runner.asr.words import Path, Span, Word, spans

Rows = NDArray[np.float32]  # [frames, vocab], log-probabilities


class Settled:
    """Frames from ``first`` on, read greedily; a word is committed, and its frames given up, once it has ended.

    It has ended when another word or a delimiter follows, or when nothing was written for ``word_gap`` frames.
    """

    def __init__(
        self, alphabet: Alphabet, *, word_gap: int, frame_s: float, calibration: Calibration | None = None
    ) -> None:
        self._alphabet, self._word_gap, self._frame_s, self._calibration = alphabet, word_gap, frame_s, calibration
        self._rows: Rows = np.empty((0, len(alphabet.texts)), np.float32)
        self._open: Span | None = None  # the word that has not ended
        self.first = 0
        self.spoken = 0  # one past the last frame of the last committed word

    @property
    def end(self) -> int:
        """One past the last frame."""
        return self.first + len(self._rows)

    @property
    def waiting(self) -> bool:
        """Whether a word is open."""
        return self._open is not None

    @property
    def gap_middle(self) -> int:
        """The frame in the middle of what lies between the last committed word and the next one."""
        return (self.spoken + (self.end if self._open is None else self.first + self._open.first)) // 2

    def add(self, rows: Rows) -> tuple[Word, ...]:
        """Take the next frames; the words that have ended with them."""
        self._rows = np.concatenate((self._rows, rows))
        return self._commit(last=False)

    def close(self) -> tuple[Word, ...]:
        """The open word, as if it had ended."""
        return self._commit(last=True)

    def tail(self, guess: Rows) -> str:
        """The open word and what seems to follow it."""
        path = greedy(np.concatenate((self._rows, guess)), blank=self._alphabet.blank)
        return " ".join(span.text(lower=self._alphabet.lower) for span in spans(path, alphabet=self._alphabet))

    def _commit(self, *, last: bool) -> tuple[Word, ...]:
        path = greedy(self._rows, blank=self._alphabet.blank)
        found = list(spans(path, alphabet=self._alphabet))
        ended = len(found) if last or self._all_ended(path, found) else len(found) - 1
        words: tuple[Word, ...] = ()
        gone = 0 if found else len(self._rows)
        if ended:
            after = found[ended].first if ended < len(found) else len(self._rows)
            gone = (found[ended - 1].last + after) // 2
            words = self._words(self._rows[:gone])
            self.spoken = self.first + found[ended - 1].last
        self._open = _moved(found[ended], gone) if ended < len(found) else None
        self._rows = self._rows[gone:].copy()
        self.first += gone
        return words

    def _all_ended(self, path: Path, found: Sequence[Span]) -> bool:
        if not found:
            return True
        behind = path.ids[path.first >= found[-1].last].tolist()
        return bool(self._alphabet.breaks.intersection(behind)) or len(self._rows) - found[-1].last >= self._word_gap

    def _words(self, rows: Rows) -> tuple[Word, ...]:
        return decode(
            rows,
            alphabet=self._alphabet,
            calibration=self._calibration,
            frame_s=self._frame_s,
            offset_s=self.first * self._frame_s,
        ).words


def _moved(span: Span, frames: int) -> Span:
    return Span(symbols=tuple((text, first - frames, last - frames) for text, first, last in span.symbols))
