"""What language says of a spelling while it grows: an n-gram model, and hotwords.

A word is scored when it ends: `alpha` times the log of its probability after the words before it, plus `beta`, which
makes up for the price of every further word. A word that the model lacks costs UNKNOWN on top of what <unk> costs, and
does so from the letter on with which no known word can come of it any more, so that such spellings leave the beam
early. Spellings are states of an automaton, made when they are first met: letters of the current word, place among the
hotwords. Language models add the words before, as a second number. Natural logarithms everywhere.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runner.asr.alphabet import Alphabet
from runner.asr.language import arpa
from runner.asr.language.hotwords import ROOT, Hotwords
from runner.asr.language.ngram import END, START, UNKNOWN, Ngram, State

UNKNOWN_COST = -10.0
BEYOND = "\U0010ffff"  # after every letter
MOST_CELLS = 16_000_000  # of the automaton: 128 MB; kept between recordings, made anew beyond it
MOST_ENDS = 500_000  # words after others: about 120 MB


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What decoding is told of the language: plain and picklable, the same for every recording of a job."""

    lm: str | None = None  # path of an ARPA file
    alpha: float = 0.0
    beta: float = 0.0
    hotwords: tuple[str, ...] = ()
    hotword_weight: float = 0.0


class _Spelling(NamedTuple):
    """The current word so far. ``first`` and ``last`` bound the words of the lexicon that begin so."""

    letters: str
    first: int
    last: int
    hot: int


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What the hypotheses of a beam carry beside their probability. Shape of each: [hypotheses], or [.., symbols]."""

    prior: NDArray[np.float64]  # score of the words and shares of words so far
    state: NDArray[np.int32]
    context: NDArray[np.int32]

    def take(self, index: NDArray[np.intp]) -> Guide:
        """The entries at ``index`` of the flattened arrays."""
        return Guide(
            prior=self.prior.ravel()[index], state=self.state.ravel()[index], context=self.context.ravel()[index]
        )

    def join(self, other: Guide) -> Guide:
        """Both, one behind the other."""
        return Guide(
            prior=np.concatenate((self.prior, other.prior)),
            state=np.concatenate((self.state, other.state)),
            context=np.concatenate((self.context, other.context)),
        )


class _End(NamedTuple):
    """What the end of a word is worth before the weights, and the context after it."""

    log: float  # of its probability
    word: int  # 1, or 0 where no word ended
    cost: float  # of an unknown one
    context: int


class Fusion:
    """Scores spellings of one alphabet. It remembers what it has met, so keep it for many recordings."""

    def __init__(
        self,
        alphabet: Alphabet,
        *,
        model: Ngram | None = None,
        alpha: float = 0.0,
        beta: float = 0.0,
        hotwords: Hotwords | None = None,
    ) -> None:
        self._texts = [text.lower() if alphabet.lower else text for text in alphabet.texts]
        self._breaks = np.array([id_ in alphabet.breaks for id_ in range(len(self._texts))])
        self._model = model
        self.weigh(alpha=alpha, beta=beta)
        self._hotwords = hotwords or Hotwords((), weight=0.0)
        self._lexicon = _lexicon(model, self._hotwords) if model else [""]
        self._forget()

    def weigh(self, *, alpha: float, beta: float) -> None:
        """Take other weights from the next recording on."""
        self._alpha, self._beta = alpha, beta

    def _forget(self) -> None:
        self._spellings: list[_Spelling] = []
        self._states: dict[_Spelling, int] = {}
        self._histories: list[State] = []
        self._contexts: dict[State, int] = {}
        self._ends: dict[tuple[int, int], _End] = {}
        self._next = np.full((64, len(self._texts)), -1, dtype=np.int32)
        self._gain = np.zeros((64, len(self._texts)), dtype=np.float32)

    @property
    def _full(self) -> bool:
        return self._next.size > MOST_CELLS or len(self._ends) > MOST_ENDS

    def start(self) -> Guide:
        """One hypothesis: nothing said yet."""
        if self._full:
            self._forget()
        state = self._state(_Spelling("", 0, len(self._lexicon), ROOT))
        context = self._context(self._model.begin() if self._model else ())
        return Guide(
            prior=np.zeros(1),
            state=np.array([state], dtype=np.int32),
            context=np.array([context], dtype=np.int32),
        )

    def resume(self, guide: Guide) -> Guide:
        """``guide`` after parts of a long recording, without what was only needed before."""
        if not self._full:
            return guide
        spellings = [self._spellings[state] for state in guide.state.tolist()]
        histories = [self._histories[context] for context in guide.context.tolist()]
        self._forget()
        states = np.array([self._state(spelling) for spelling in spellings], dtype=np.int32)
        contexts = np.array([self._context(history) for history in histories], dtype=np.int32)
        return replace(guide, state=states, context=contexts)

    def grow(self, guide: Guide, likely: NDArray[np.intp]) -> Guide:
        """Every hypothesis with each of the symbols. Shapes [hypotheses, symbols]."""
        at = guide.state[:, None], likely[None, :]
        states = self._next[at]
        if (states < 0).any():
            rows, columns = np.nonzero(states < 0)
            for state, symbol in {*zip(guide.state[rows].tolist(), likely[columns].tolist(), strict=True)}:
                self._fill(state, symbol)
            states = self._next[at]
        prior = guide.prior[:, None] + self._gain[at]
        context = np.repeat(guide.context[:, None], len(likely), axis=1)
        breaks = self._breaks[likely]
        if breaks.any():
            scores, contexts = self._ended(guide)
            prior[:, breaks] += scores[:, None]
            context[:, breaks] = contexts[:, None]
        return Guide(prior=prior, state=states, context=context)

    def finish(self, guide: Guide) -> NDArray[np.float64]:
        """The score of each hypothesis when nothing follows: its last word, and the end of the sentence."""
        scores, contexts = self._ended(guide)
        scores += guide.prior
        for at, (context, state) in enumerate(zip(contexts.tolist(), guide.state.tolist(), strict=True)):
            if self._model is not None and self._model.end is not None:
                scores[at] += self._alpha * self._model.score(self._histories[context], self._model.end)[0]
            scores[at] += self._hotwords.ended(self._spellings[state].hot)
        return scores

    def _state(self, spelling: _Spelling) -> int:
        found = self._states.get(spelling)
        if found is None:
            found = self._states[spelling] = len(self._spellings)
            self._spellings.append(spelling)
            if found == len(self._next):
                self._next = np.concatenate((self._next, np.full_like(self._next, -1)))
                self._gain = np.concatenate((self._gain, np.zeros_like(self._gain)))
        return found

    def _context(self, history: State) -> int:
        found = self._contexts.get(history)
        if found is None:
            found = self._contexts[history] = len(self._histories)
            self._histories.append(history)
        return found

    def _fill(self, state: int, symbol: int) -> None:
        """Work out where ``symbol`` leads, and what it adds beside the score of a word that it may end."""
        spelling, gain = self._spellings[state], 0.0
        if self._breaks[symbol]:
            hot = spelling.hot
            if spelling.letters:
                gain, hot = self._hotwords.boundary(hot)
            spelling = _Spelling("", 0, len(self._lexicon), hot)
        for letter in self._texts[symbol]:
            more, hot = self._hotwords.letter(spelling.hot, letter)
            was_known = spelling.first < spelling.last
            spelling = self._longer(spelling, letter, hot)
            gain += more + (UNKNOWN_COST if was_known and spelling.first == spelling.last else 0.0)
        self._next[state, symbol] = self._state(spelling)  # the table may grow in between
        self._gain[state, symbol] = gain

    def _longer(self, spelling: _Spelling, letter: str, hot: int) -> _Spelling:
        if self._model is None:
            return _Spelling("…", 0, 1, hot)  # nothing is asked of the letters, only whether there are any
        letters = spelling.letters + letter
        first = bisect_left(self._lexicon, letters, spelling.first, spelling.last)
        last = bisect_left(self._lexicon, letters + BEYOND, first, spelling.last)
        return _Spelling(letters, first, last, hot) if first < last else _Spelling("…", 0, 0, hot)

    def _ended(self, guide: Guide) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Score of the current word of each hypothesis as it stands, and the context after it."""
        ends = [self._end(*key) for key in zip(guide.context.tolist(), guide.state.tolist(), strict=True)]
        log, word, cost, context = np.array(ends).T
        return self._alpha * log + self._beta * word + cost, context.astype(np.int32)

    def _end(self, context: int, state: int) -> _End:
        found = self._ends.get((context, state))
        if found is None:
            found = self._ends[context, state] = self._scored(context, self._spellings[state])
        return found

    def _scored(self, context: int, spelling: _Spelling) -> _End:
        if self._model is None or not spelling.letters:
            return _End(0.0, 0, 0.0, context)
        begun = spelling.first < spelling.last
        whole = begun and self._lexicon[spelling.first] == spelling.letters
        word = self._model.id(spelling.letters if whole else UNKNOWN)
        log, history = self._model.score(self._histories[context], word)
        return _End(log, 1, UNKNOWN_COST if begun and not whole else 0.0, self._context(history))


def load(wording: Wording, alphabet: Alphabet) -> Fusion:
    """The fusion of a wording, ready; kept for the next recording. Raises JobError for a broken ARPA file."""
    known = None if wording.lm is None else model(wording.lm)
    fusion = _load(known, wording.hotwords, wording.hotword_weight, alphabet)
    fusion.weigh(alpha=wording.alpha, beta=wording.beta)
    return fusion


def model(path: str) -> Ngram:
    """The model of an ARPA file; the last one stays in memory. Raises JobError for a broken one."""
    facts = Path(path).stat()
    return _model(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=1)
def _model(path: str, size: int, changed: int) -> Ngram:
    return arpa.read(Path(path))


@lru_cache(maxsize=1)
def _load(known: Ngram | None, hotwords: tuple[str, ...], weight: float, alphabet: Alphabet) -> Fusion:
    return Fusion(alphabet, model=known, hotwords=Hotwords(hotwords, weight=weight))


def _lexicon(model: Ngram, hotwords: Hotwords) -> list[str]:
    """Words that are known, in order. A hotword is known, whether the model has it or not."""
    own: Iterable[str] = (word for phrase in hotwords.phrases for word in phrase.split())
    return sorted({*model.words, *own} - {UNKNOWN, START, END})


def spelled(words: Iterable[str], alphabet: Alphabet) -> set[str]:
    """The words for which the alphabet has a symbol of every letter."""
    texts = (text.lower() if alphabet.lower else text for text in alphabet.texts)
    signs = {sign for text in texts for sign in text}
    return {word for word in words if word and signs.issuperset(word)}
