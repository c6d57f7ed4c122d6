"""Error rates by group (voice, noise, length) and the words most often wrong, from utterances that were scored."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise, zip_longest

import jiwer

from runner.asr.bootstrap import interval
from runner.asr.score import Counts, Rate, UtteranceScore
from runner.context import Table

LENGTH = "length"  # the group that every utterance has
BOUNDS_S = (2.0, 4.0, 8.0, 16.0)
MOST_VALUES = 200  # a column with more is a name or a number of each recording, and no group
WORST = 50  # words shown
INSTEAD = 3  # words heard in a word's place

LENGTHS = (
    f"under {BOUNDS_S[0]:g} s",
    *(f"{start:g} to {end:g} s" for start, end in pairwise(BOUNDS_S)),
    f"{BOUNDS_S[-1]:g} s and more",
)
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")


class Groups:
    """Takes utterances one by one and holds counts only. Their order does not matter.

    Everything is counted in the accent-sensitive convention, as ``runner.asr.score`` has aligned it.
    """

    def __init__(self) -> None:
        self._tallies: dict[str, dict[str, _Tally]] = {}
        self._all = _Tally()
        self._said = Counter[str]()
        self._wrong = Counter[str]()
        self._instead: dict[str, Counter[str]] = {}

    def add(self, scored: UtteranceScore, *, groups: Mapping[str, str], seconds: float | None = None) -> None:
        """Count what ``Scorer.add`` returned. ``groups`` are the further columns of its row: `{"voice": "ana"}`."""
        self._all.add(scored)
        for field, value in {**groups, **({} if seconds is None else {LENGTH: length(seconds)})}.items():
            values = self._tallies.setdefault(field, {})
            if value in values or len(values) <= MOST_VALUES:
                values.setdefault(value, _Tally()).add(scored)
        self._said.update(scored.reference.split())
        if scored.words.errors:
            self._count_words(scored)

    def rates(self) -> dict[str, dict[str, tuple[int, Rate, Rate]]]:
        """Field -> value -> (utterances, words, characters); fields with too many values are left out."""
        return {
            field: {value: tally.rates() for value, tally in sorted(values.items(), key=_place)}
            for field, values in sorted(self._tallies.items())
            if len(values) <= MOST_VALUES
        }

    def table(self, *, before: Groups | None = None) -> Table:
        """A row for all, then one for each group. ``before`` adds the rates of an earlier model on the same data."""
        earlier = {} if before is None else before.rates()
        rows: list[tuple[object, ...]] = [
            (*_row("all", "", self._all.rates()), *(() if before is None else _rate(before._all.rates())))
        ]
        for field, values in self.rates().items():
            for value, found in values.items():
                was = () if before is None else _rate(earlier.get(field, {}).get(value))
                rows.append((*_row(field, value, found), *was))
        columns = ("group", "value", "utterances", "words", "wrong words", "CER", "WER", "from", "to")
        many = sorted(field for field, values in self._tallies.items() if len(values) > MOST_VALUES)
        no_groups = f"; more than {MOST_VALUES} values, so no group: {', '.join(many)}" if many else ""
        return Table(
            title="Error rates by group",
            columns=(*columns, *(() if before is None else ("WER before", "before from", "before to"))),
            rows=rows,
            note=f"95% bootstrap intervals over utterances; one utterance has none{no_groups}",
        )

    def words(self, *, before: Groups | None = None) -> Table:
        """The reference words most often heard wrong, and what was heard; "(nothing)" stands for a word missed."""
        worst = sorted(self._wrong, key=lambda word: (-self._wrong[word], word))[:WORST]
        rows: list[tuple[object, ...]] = []
        for word in worst:
            instead = sorted(self._instead[word].items(), key=lambda entry: (-entry[1], entry[0]))[:INSTEAD]
            heard = ", ".join(f"{other or '(nothing)'} {count}" for other, count in instead)
            was = () if before is None else (before._wrong[word],)
            rows.append((word, self._said[word], self._wrong[word], self._wrong[word] / self._said[word], heard, *was))
        columns = ("word", "said", "wrong", "share", "heard instead", *(() if before is None else ("wrong before",)))
        more = len(self._wrong) - len(worst)
        return Table(
            title="Words most often wrong",
            columns=columns,
            rows=rows,
            note=f"{more} more words were wrong at least once" if more else "",
        )

    def _count_words(self, scored: UtteranceScore) -> None:
        """Words added belong to no reference word and are not counted here."""
        for wanted, heard in _wrong_words(scored):
            self._wrong[wanted] += 1
            self._instead.setdefault(wanted, Counter())[heard] += 1


class _Tally:
    """Sums of one group, and how often each (errors, references) of an utterance came."""

    def __init__(self) -> None:
        self._utterances = 0
        self._sums = Counter[tuple[str, str]]()
        self._pairs = {"words": Counter[tuple[int, int]](), "characters": Counter[tuple[int, int]]()}

    def add(self, scored: UtteranceScore) -> None:
        self._utterances += 1
        for unit, pairs in self._pairs.items():
            counts: Counts = getattr(scored, unit)
            pairs[counts.errors, counts.references] += 1
            self._sums.update({(unit, name): count for name, count in vars(counts).items()})

    def rates(self) -> tuple[int, Rate, Rate]:
        words, characters = (
            Rate(
                counts=Counts(**{name: count for (of, name), count in self._sums.items() if of == unit}),
                interval=interval(pairs),
            )
            for unit, pairs in self._pairs.items()
        )
        return self._utterances, words, characters


def length(seconds: float) -> str:
    """The length group of an utterance: `2 to 4 s`."""
    return LENGTHS[sum(seconds >= bound for bound in BOUNDS_S)]


def _place(entry: tuple[str, object]) -> tuple[int, float, str]:
    """Lengths from short to long, numbers by value, everything else by name."""
    name = entry[0]
    number = float(name) if _NUMBER.fullmatch(name) else math.inf
    return (LENGTHS.index(name) if name in LENGTHS else -1, number, name)


def _row(field: str, value: str, found: tuple[int, Rate, Rate]) -> tuple[object, ...]:
    utterances, words, characters = found
    return field, value, utterances, words.counts.references, words.counts.errors, characters.rate, *_rate(found)


def _rate(found: tuple[int, Rate, Rate] | None) -> tuple[float | None, ...]:
    """WER and its interval; nothing for a group that was not there."""
    return (None, None, None) if found is None else (found[1].rate, *(found[1].interval or (None, None)))


def _wrong_words(scored: UtteranceScore) -> Sequence[tuple[str, str]]:
    """(reference word, what was heard in its place or "")."""
    output = jiwer.process_words(scored.reference, scored.hypothesis)
    reference, hypothesis = output.references[0], output.hypotheses[0]
    found = []
    for chunk in output.alignments[0]:
        if chunk.type in ("substitute", "delete"):
            wanted = reference[chunk.ref_start_idx : chunk.ref_end_idx]
            heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
            found += list(zip_longest(wanted, heard, fillvalue=""))
    return found
