"""Hotwords: words and phrases that are likelier than a model thinks.

Each word of a phrase that is spelled in full adds the weight once. While a phrase is being spelled it already has a
share of that, by letters, so that it survives in the beam until it is whole; when it is not finished the share is
taken back. Phrases are looked for from the left, and after a miss again from the current word on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

ROOT, LOST = 0, 1  # at the start of a word; in a word that is no hotword


@dataclass(kw_only=True)
class _Node:
    """A beginning of phrases. Counts are in words."""

    next: dict[str, int] = field(default_factory=dict)
    words: int = 0  # complete before the current one
    letters: int = 0  # of the current word
    longest: int = 1  # letters of the longest word that goes on from here
    ends: bool = False  # a phrase
    again: int = LOST  # the current word alone, as a beginning of phrases
    sure: int = 0  # words before the current one that belong to whole phrases

    @property
    def hoped(self) -> float:
        return self.words + self.letters / self.longest


class Hotwords:
    """A tree of phrases. A place in it is a number; every step says what it adds to the score, in natural log."""

    def __init__(self, phrases: Iterable[str], *, weight: float) -> None:
        self.phrases = sorted({" ".join(phrase.split()) for phrase in phrases} - {""})
        self._weight = weight
        self._nodes = [_Node(), _Node()]
        for phrase in self.phrases:
            self._add(phrase)
        for node in range(2, len(self._nodes)):  # a node comes before those below it
            self._link(node)

    def _add(self, phrase: str) -> None:
        at = ROOT
        for word_number, word in enumerate(phrase.split()):
            for letters, sign in enumerate(word if word_number == 0 else f" {word}", start=word_number == 0):
                below = self._nodes[at].next
                if sign not in below:
                    below[sign] = len(self._nodes)
                    self._nodes.append(_Node(words=word_number, letters=letters))
                at = below[sign]
                self._nodes[at].longest = max(self._nodes[at].longest, len(word))
        self._nodes[at].ends = True

    def _link(self, number: int) -> None:
        """Pass on to the nodes below what the words up to there are worth."""
        node = self._nodes[number]
        if not node.words:
            node.again = number
        elif not node.letters:
            node.again = ROOT
        for sign, below in node.next.items():
            child = self._nodes[below]
            if sign == " ":
                child.sure = self._kept(node)
            else:
                child.sure = node.sure
                child.again = self._nodes[node.again].next.get(sign, LOST)

    def _kept(self, node: _Node) -> int:
        """Words that count when the current one ends here."""
        return node.words + 1 if node.ends else node.sure + self._nodes[node.again].ends

    def letter(self, place: int, sign: str) -> tuple[float, int]:
        """(what it adds, where it leads) of one letter."""
        node = self._nodes[place]
        found = node.next.get(sign)
        if found is None:
            found = self._nodes[node.again].next.get(sign, LOST)
            return self._weight * (node.sure + self._nodes[found].hoped - node.hoped), found
        return self._weight * (self._nodes[found].hoped - node.hoped), found

    def boundary(self, place: int) -> tuple[float, int]:
        """The same of the end of a word that has letters."""
        node = self._nodes[place]
        found = node.next.get(" ")
        if found is None:
            return self.ended(place), ROOT
        return self._weight * (self._nodes[found].hoped - node.hoped), found

    def ended(self, place: int) -> float:
        """What the end of the text adds: shares of unfinished phrases are taken back."""
        node = self._nodes[place]
        kept = self._kept(node) if node.letters else node.sure
        return self._weight * (kept - node.hoped)
