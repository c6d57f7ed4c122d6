"""Embedding in the worker: hidden states of chosen layers, and what becomes of a recording's only window at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from runner.asr import confidence, portuguese, silence
from runner.asr.acoustic import Acoustic
from runner.asr.align.text import Speller
from runner.asr.align.words import Clock, located, quiet_row
from runner.asr.alphabet import Alphabet
from runner.asr.ctc import load_alphabet
from runner.asr.decode import greedy
from runner.asr.embed import pool as embed_pool
from runner.asr.embed.layers import Layers
from runner.asr.embed.pool import Pooling
from runner.asr.pieces import Outcome, Piece, Setup
from runner.asr.trouble import RecordingError
from runner.asr.words import spans
from runner.schema.errors import JobError

Fields = dict[str, Any]
Samples = NDArray[np.float32]
# Of a window: [frames, features + 1 + vocab] features, 1 where something can be heard, and log-probabilities; the
# last only for words.
Rows = NDArray[np.float32]
MOST = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is made of the frames."""

    layers: tuple[int, ...]  # from the front
    weights: tuple[float, ...] | None  # of a sum of the layers; None sets them side by side
    pooling: Pooling
    words: Literal["heard", "given"]  # whose means `word` takes
    dtype: Literal["fp16", "fp32"]
    text: portuguese.Settings | None = None  # what is said for given words; None: unknown characters are wildcards


@dataclass(frozen=True, kw_only=True)
class Made:
    """One recording's vectors in blocks, and what is known of them."""

    vectors: Iterator[NDArray[np.floating]] | list[NDArray[np.floating]]  # each [n, width], in the result's format
    frames: int  # that something can be heard in
    words: list[Fields] | None  # one for each vector, where they are words'


class Pooler:
    """Makes vectors of the rows of one recording."""

    def __init__(self, setup: Setup, wanted: Wanted, alphabet: Alphabet) -> None:
        self._setup, self._wanted, self._alphabet = setup, wanted, alphabet
        self._speller = Speller(alphabet)
        self._say = None if wanted.text is None else portuguese.normaliser(wanted.text)
        self.wordy = wanted.pooling == "word"
        self.in_parts = wanted.pooling in embed_pool.PARTS  # frames need not be kept until all windows are there

    def quiet(self, width: int) -> Rows:
        """A row of silence, ``width`` columns: no feature, not heard, and what parts words. [1, width]."""
        row = np.zeros((1, width), np.float32)
        if self.wordy:
            blank, delimiter = self._alphabet.blank, self._speller.delimiter
            if self._wanted.words == "heard" and delimiter is not None:
                blank = delimiter  # else a window of silence would join the words beside it
            vocab = len(self._alphabet.texts)
            row[:, -vocab:] = quiet_row(vocab=vocab, blank=blank, delimiter=delimiter, never=silence.NEVER)
        return row

    def hush(self, rows: Rows, heard: NDArray[np.bool_]) -> None:
        """Make the frames that are not ``heard`` silence, in place."""
        rows[~heard] = self.quiet(rows.shape[1])
        if self.wordy and self._wanted.words == "heard":
            scores = rows[:, -len(self._alphabet.texts) :]
            silence.hush(scores, heard, blank=self._alphabet.blank, delimiter=self._speller.delimiter)

    def made(self, rows: Rows, text: str | None, *, first: int, samples: int) -> Made | None:
        """What ``rows`` give for the samples from ``first`` on; None where nothing is heard or no word is there.

        Raises RecordingError where the words of ``text`` cannot be found, or the model's output holds NaN.
        """
        features, heard = self._heard_frames(rows)
        if not heard.any():
            return None
        frames = rows[:, :features]
        if self.wordy:
            words = self._words(rows[:, features + 1 :], text, first=first, samples=samples)
            if not words:
                return None
            vectors = embed_pool.over_spans(frames, [word.pop("frames") for word in words])
            return Made(vectors=[self._format(vectors)], frames=int(heard.sum()), words=words)
        made = (self._format(frames[block]) for block in embed_pool.blocks(len(frames)))
        return Made(vectors=made, frames=int(heard.sum()), words=None)

    def part(self, rows: Rows) -> NDArray[np.floating]:
        """What is kept of one window for ``merged``: [parts, features + 1]."""
        features, heard = self._heard_frames(rows)
        return embed_pool.part(rows[:, :features], heard, self._wanted.pooling)

    def merged(self, parts: NDArray[np.floating]) -> Made | None:
        """What the parts of all windows give, [windows, parts, features + 1]; None where nothing is heard."""
        frames = int(parts[:, 0, -1].sum())
        if not frames:
            return None
        return Made(vectors=[self._format(embed_pool.pooled(parts, self._wanted.pooling))], frames=frames, words=None)

    def _heard_frames(self, rows: Rows) -> tuple[int, NDArray[np.bool_]]:
        """How many columns are features, and which frames are heard."""
        features = rows.shape[1] - 1 - (len(self._alphabet.texts) if self.wordy else 0)
        return features, np.array(rows[:, features], np.bool_)

    def _format(self, vectors: NDArray[np.floating]) -> NDArray[np.floating]:
        """In the result's number format; what fp16 cannot hold becomes its largest number."""
        if not np.isfinite(vectors).all():
            raise RecordingError("failed", "NaN", "the model's hidden states hold NaN or infinity; try precision: fp32")
        if self._wanted.dtype == "fp32":
            return vectors.astype(np.float32)
        return vectors.clip(-MOST, MOST).astype(np.float16)

    def _words(self, scores: Rows, text: str | None, *, first: int, samples: int) -> list[Fields]:
        """Words with times, confidence and `frames`, the half-open span."""
        rate = self._setup.source.rate
        clock = Clock(frame_s=self._setup.source.stride / rate, offset_s=first / rate, end_s=(first + samples) / rate)
        found = self._heard(scores) if self._wanted.words == "heard" else self._given(scores, text)
        if not found:
            return []
        low, high = np.array([span for _, span in found]).T
        sure = confidence.over_spans(confidence.certainty(scores), low, high)
        return [
            {"word": word, "start": clock(a), "end": clock(b), "confidence": round(float(value), 3), "frames": (a, b)}
            for (word, (a, b)), value in zip(found, sure, strict=True)
        ]

    def _heard(self, scores: Rows) -> list[tuple[str, tuple[int, int]]]:
        lower = self._alphabet.lower
        path = greedy(np.ascontiguousarray(scores), blank=self._alphabet.blank)
        return [(span.text(lower=lower), (span.first, span.last)) for span in spans(path, alphabet=self._alphabet)]

    def _given(self, scores: Rows, text: str | None) -> list[tuple[str, tuple[int, int]]]:
        try:
            found = located(scores, text, speller=self._speller, blank=self._alphabet.blank, say=self._say)
        except JobError as error:
            raise RecordingError("failed", error.failure, str(error)) from error
        edges = [(int(found.path.first[s.start]), int(found.path.last[s.stop - 1])) for s in found.spans]
        return [(word.word, edge) for word, edge in zip(found.words, edges, strict=True)]


class Embedder:
    """The engine of embedding."""

    def __init__(self, setup: Setup, *, dtype: torch.dtype, wanted: Wanted) -> None:
        self._wanted = wanted
        self._acoustic = Acoustic(setup.source, device=setup.device, dtype=dtype)
        self._layers = Layers(self._acoustic.model, wanted.layers)
        self.vocab = self._acoustic.vocab_size
        alphabet = load_alphabet(setup, vocab=self.vocab, blank=self._acoustic.blank)
        self.blank = alphabet.blank
        self._pooler = Pooler(setup, wanted, alphabet)
        self.about, self.again = self._acoustic.about, 0

    def compute(self, windows: Sequence[Samples]) -> list[Rows]:
        """Features of each window, a column for silence, and log-probabilities where words are asked for."""
        self._layers.forget()
        scores = self._acoustic.log_probs(windows)
        packed = self._acoustic.packed is not None and self._acoustic.packed.together
        states = self._layers.take([len(one) for one in scores], packed=packed)
        return [self._rows(*one) for one in zip(states, scores, strict=True)]

    def _rows(self, states: list[torch.Tensor], scores: Rows) -> Rows:
        if self._wanted.weights is None:
            features = torch.cat(states, dim=1)
        else:
            features = sum((w * one for w, one in zip(self._wanted.weights, states, strict=True)), torch.tensor(0.0))
        columns = [features.cpu().numpy(), np.ones((len(features), 1), np.float32)]
        return np.concatenate([*columns, scores] if self._pooler.wordy else columns, axis=1)

    def finish(self, outcome: Outcome, piece: Piece, result: Rows, loud: NDArray[np.bool_]) -> Outcome:
        """The vectors of a recording's only window; the kept frames of one of several."""
        heard = loud[np.minimum(np.arange(len(result)), len(loud) - 1)]  # a mel front end may give a frame more
        self._pooler.hush(result, heard)
        rows: NDArray[np.floating] = result[piece.keep_from : piece.keep_to]
        if self._pooler.in_parts:
            rows = self._pooler.part(rows)
        if not piece.alone:
            return replace(outcome, rows=rows.astype(np.float32))
        try:
            if self._pooler.in_parts:
                made = self._pooler.merged(rows[None])
            else:
                made = self._pooler.made(rows, piece.text, first=piece.first, samples=outcome.samples)
            return replace(outcome, made=made and replace(made, vectors=list(made.vectors)))
        except RecordingError as trouble:
            return replace(outcome, trouble=trouble)

    def unheard(self, outcome: Outcome, piece: Piece) -> Outcome:
        """Nothing is known of a window that is all silence."""
        return outcome
