"""N-gram language models with backoff: how likely a word is after others.

A model is one sorted array per order. The n-gram `a b c` is the place of `a b` in the order below together with the
id of `c`, packed in one 64-bit number, so a look-up is a binary search and nothing is hashed. A state holds, for each
order, the place of the last words as an n-gram of that order; -1 where the model does not list them.
Memory: 24 bytes for an n-gram, 16 in the highest order, and the words once.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNKNOWN, START, END = "<unk>", "<s>", "</s>"
NEVER = -99.0  # log10, as ARPA files write the probability of <s>
LN10 = math.log(10)

State = tuple[int, ...]
Ids = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Grams:
    """All n-grams of one order, as ARPA files have them. Shapes [n-grams, order] and [n-grams]; log10."""

    ids: NDArray[np.int32]
    probability: Floats
    backoff: Floats


@dataclass(frozen=True, kw_only=True)
class _Level:
    """The n-grams of one order, sorted by key."""

    keys: memoryview  # int64; a view gives numbers of Python, five times as fast as numpy's one by one
    probability: memoryview  # natural log, double
    backoff: memoryview


class Ngram:
    """A model of any order. Words are numbered as in ``words``."""

    def __init__(self, words: Sequence[str], unigrams: Grams) -> None:
        self.words = {word: id_ for id_, word in enumerate(words)}
        self.start, self.end = self.words.get(START), self.words.get(END)
        self._size = len(words)
        self._levels: list[_Level] = []
        self._keys: list[Ids] = []
        order = unigrams.ids[:, 0].argsort()
        assert len(order) == self._size, "every word is one unigram"
        self._add(np.arange(self._size, dtype=np.int64), unigrams, order)
        known = self._levels[0].probability
        least = min((p for p in known if p > NEVER / 2 * LN10), default=0.0)
        listed = self.words.get(UNKNOWN)
        # a file without <unk>, or with one that never comes, still has to say something of a word that it lacks
        self.unknown = least if listed is None or known[listed] < NEVER / 2 * LN10 else known[listed]
        self._unknown_id = -1 if listed is None else listed

    @property
    def order(self) -> int:
        return len(self._levels)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of n-grams of each order."""
        return tuple(len(level.keys) for level in self._levels)

    def add(self, grams: Grams) -> int | None:
        """Take over the next order. The row of an n-gram whose beginning the order below lacks, if there is one, or of
        one that is there twice; the order is not added then."""
        place = self._places(grams.ids[:, :-1])
        lost = np.flatnonzero(place < 0)
        if len(lost):
            return int(lost[0])
        keys = place * self._size + grams.ids[:, -1]
        order = keys.argsort(kind="stable")
        twice = np.flatnonzero(np.diff(keys[order]) == 0)
        if len(twice):
            return int(order[twice[0] + 1])
        self._add(keys[order], grams, order)
        return None

    def _add(self, keys: Ids, grams: Grams, order: NDArray[np.intp]) -> None:
        probability = grams.probability[order].astype(np.float64) * LN10
        backoff = grams.backoff[order].astype(np.float64) * LN10
        self._keys.append(keys)
        self._levels.append(_Level(keys=keys.data, probability=probability.data, backoff=backoff.data))

    def _places(self, ids: NDArray[np.int32]) -> Ids:
        """Place of each row in its order, -1 for those that are not there."""
        place = ids[:, 0].astype(np.int64)
        for column, keys in zip(ids.T[1:], self._keys[1:], strict=True):
            wanted = place * self._size + column
            found = np.searchsorted(keys, wanted).clip(max=max(len(keys) - 1, 0))
            there = (place >= 0) & (keys[found] == wanted) if len(keys) else np.zeros(len(place), bool)
            place = np.where(there, found, -1)
        return place

    def begin(self) -> State:
        """The state at the start of a sentence."""
        nothing = (-1,) * (self.order - 1)
        return nothing if self.start is None else self._after(nothing, self.start)

    def id(self, word: str) -> int:
        """The word's number; that of <unk>, or -1 in a model without one, for words that it lacks."""
        return self.words.get(word, self._unknown_id)

    def score(self, state: State, word: int) -> tuple[float, State]:
        """Natural log of the word's probability after ``state``, and the state after it; ``word`` is from ``id``."""
        if word < 0 or word == self._unknown_id:
            return self._backed_off(state, word, self.unknown), self._after(state, word)
        return self._backed_off(state, word, self._levels[0].probability[word]), self._after(state, word)

    def _backed_off(self, state: State, word: int, alone: float) -> float:
        backoff = 0.0
        for order in range(self.order - 1, 0, -1):
            place = state[order - 1]
            if place < 0:
                continue
            found = self._find(order, place, word)
            if found >= 0:
                return backoff + self._levels[order].probability[found]
            backoff += self._levels[order - 1].backoff[place]
        return backoff + alone

    def _after(self, state: State, word: int) -> State:
        if self.order == 1:
            return ()
        longer = (self._find(order, state[order - 1], word) for order in range(1, self.order - 1))
        return (word, *longer)

    def _find(self, below: int, place: int, word: int) -> int:
        """Place of the n-gram of order ``below`` + 1 that adds ``word`` to the one at ``place``; -1: not there."""
        if place < 0 or word < 0:
            return -1
        keys, wanted = self._levels[below].keys, place * self._size + word
        at = bisect_left(keys, wanted)
        return at if at < len(keys) and keys[at] == wanted else -1


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """How surprised a model is by text: 10 means as unsure as between 10 equally likely words."""

    value: float | None  # over the words that the model knows and the ends of sentences; None without any
    words: int
    unknown: int  # words that it lacks; in no perplexity


def perplexity(model: Ngram, sentences: Iterable[Sequence[str]]) -> Perplexity:
    """Of sentences, each its words."""
    total, counted, words, unknown = 0.0, 0, 0, 0
    for sentence in sentences:
        state = model.begin()
        words += len(sentence)
        for word in sentence:
            score, state = model.score(state, model.id(word))
            if word in model.words:
                total, counted = total + score, counted + 1
            else:
                unknown += 1
        if model.end is not None and sentence:
            total, counted = total + model.score(state, model.end)[0], counted + 1
    value = math.exp(-total / counted) if counted else None
    return Perplexity(value=value, words=words, unknown=unknown)
