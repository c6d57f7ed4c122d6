"""Word and character error rates of a corpus, in both conventions, from texts that stream by."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import jiwer

from runner.asr.bootstrap import interval
from runner.asr.normalise import ACCENT_SENSITIVE, LEADERBOARD, Convention

CONVENTIONS = (ACCENT_SENSITIVE, LEADERBOARD)  # the first one is the headline
WORST = 50  # utterances kept for the report
CONFUSIONS = 50  # pairs of words in the result
MOST_PAIRS = 100_000  # pairs of words counted at once: 20 MB; beyond it the rarer half is forgotten


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Errors against a reference, as jiwer aligns them. CER counts the spaces between words too."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def references(self) -> int:
        """Words or characters of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Errors / references, above 1 when much was inserted; None without a reference to divide by."""
        return self.errors / self.references if self.references else None


@dataclass(frozen=True, kw_only=True)
class Rate:
    """An error rate of the corpus: the sum of errors over the sum of references, with its counts."""

    counts: Counts
    interval: tuple[float, float] | None  # 95%, bootstrap over utterances; None when it cannot be told

    @property
    def rate(self) -> float | None:
        return self.counts.rate


@dataclass(frozen=True, kw_only=True)
class Rates:
    """WER and CER in one convention."""

    convention: Convention
    words: Rate
    characters: Rate


@dataclass(frozen=True, kw_only=True)
class UtteranceScore:
    """One utterance in the accent-sensitive convention, texts normalised."""

    key: str
    reference: str
    hypothesis: str
    words: Counts
    characters: Counts


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A word and what was heard in its place; "" stands for nothing: a word missed or added."""

    reference: str
    hypothesis: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All that the report says about errors."""

    utterances: int
    rates: tuple[Rates, ...]  # accent-sensitive, then leaderboard
    worst: tuple[UtteranceScore, ...]  # by number of wrong words, those without errors left out
    confusions: tuple[Confusion, ...]  # accent-sensitive, most frequent first

    def metrics(self) -> dict[str, Any]:
        """`wer`, `cer`, `wer_leaderboard`, `cer_leaderboard` (None without references), counts, normalisers."""
        found: dict[str, Any] = {"utterances_scored": self.utterances}
        for name, rate in self._named():
            found[name] = rate.rate
            found[f"{name}_counts"] = {
                "hits": rate.counts.hits,
                "substitutions": rate.counts.substitutions,
                "deletions": rate.counts.deletions,
                "insertions": rate.counts.insertions,
                "references": rate.counts.references,
            }
        found["normalisers"] = [str(rates.convention) for rates in self.rates]
        return found

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95% intervals by the names of ``metrics``."""
        return {name: rate.interval for name, rate in self._named() if rate.interval}

    def _named(self) -> list[tuple[str, Rate]]:
        named = []
        for rates in self.rates:
            suffix = "" if rates.convention is ACCENT_SENSITIVE else f"_{rates.convention.name}"
            named += [(f"wer{suffix}", rates.words), (f"cer{suffix}", rates.characters)]
        return named


class Scorer:
    """Takes utterances one by one and holds counts only: 100,000 of them take a few MB."""

    def __init__(self) -> None:
        self._utterances = 0
        self._words = {convention.name: _Tally() for convention in CONVENTIONS}
        self._characters = {convention.name: _Tally() for convention in CONVENTIONS}
        self._worst: list[UtteranceScore] = []
        self._confusions: Counter[tuple[str, str]] = Counter()

    def add(self, reference: str, hypothesis: str, *, key: str) -> UtteranceScore:
        """Count one utterance and return its own score. ``key`` names it and differs from every other one."""
        self._utterances += 1
        for convention in CONVENTIONS[1:]:
            self._count(convention, convention.apply(reference), convention.apply(hypothesis))
        reference, hypothesis = ACCENT_SENSITIVE.apply(reference), ACCENT_SENSITIVE.apply(hypothesis)
        words, characters = self._count(ACCENT_SENSITIVE, reference, hypothesis, confusions=self._confusions)
        score = UtteranceScore(key=key, reference=reference, hypothesis=hypothesis, words=words, characters=characters)
        if words.errors:
            self._worst.append(score)
            if len(self._worst) >= 2 * WORST:
                self._worst = _ranked(self._worst)
        if len(self._confusions) > MOST_PAIRS:
            self._confusions = Counter(dict(self._confusions.most_common(MOST_PAIRS // 2)))
        return score

    def result(self) -> Scores:
        """The scores of all utterances so far; their order does not matter."""
        frequent = sorted(self._confusions.items(), key=lambda entry: (-entry[1], entry[0]))[:CONFUSIONS]
        return Scores(
            utterances=self._utterances,
            rates=tuple(
                Rates(
                    convention=convention,
                    words=self._words[convention.name].rate(),
                    characters=self._characters[convention.name].rate(),
                )
                for convention in CONVENTIONS
            ),
            worst=tuple(_ranked(self._worst)),
            confusions=tuple(
                Confusion(reference=reference, hypothesis=hypothesis, count=count)
                for (reference, hypothesis), count in frequent
            ),
        )

    def _count(
        self,
        convention: Convention,
        reference: str,
        hypothesis: str,
        *,
        confusions: Counter[tuple[str, str]] | None = None,
    ) -> tuple[Counts, Counts]:
        words, characters = _compare(reference, hypothesis, confusions=confusions)
        self._words[convention.name].add(words)
        self._characters[convention.name].add(characters)
        return words, characters


class _Tally:
    """Counts of a corpus, and how often each (errors, references) of an utterance came."""

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._utterances = Counter[tuple[int, int]]()

    def add(self, counts: Counts) -> None:
        self._counts.update(vars(counts))
        self._utterances[counts.errors, counts.references] += 1

    def rate(self) -> Rate:
        return Rate(counts=Counts(**self._counts), interval=interval(self._utterances))


def _compare(reference: str, hypothesis: str, *, confusions: Counter[tuple[str, str]] | None) -> tuple[Counts, Counts]:
    """Words and characters of two normalised texts."""
    if reference == hypothesis:
        return Counts(hits=len(reference.split())), Counts(hits=len(reference))
    words = jiwer.process_words(reference, hypothesis)
    if confusions is not None:
        confusions.update(_confused(words))
    return _counts(words), _counts(jiwer.process_characters(reference, hypothesis))


def _counts(output: Any) -> Counts:
    return Counts(
        hits=output.hits,
        substitutions=output.substitutions,
        deletions=output.deletions,
        insertions=output.insertions,
    )


def _confused(output: Any) -> Counter[tuple[str, str]]:
    reference, hypothesis = output.references[0], output.hypotheses[0]
    pairs: Counter[tuple[str, str]] = Counter()
    for chunk in output.alignments[0]:
        wanted = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if chunk.type != "equal":
            pairs.update(zip_longest(wanted, heard, fillvalue=""))
    return pairs


def _ranked(scores: list[UtteranceScore]) -> list[UtteranceScore]:
    return sorted(scores, key=lambda score: (-score.words.errors, score.key))[:WORST]
