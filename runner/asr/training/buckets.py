"""Which clips are heard together, and when: batches by seconds out of clips of like length, for a whole run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray

from runner.asr.training import augment
from runner.asr.training.augment import Draws
from runner.asr.training.recipe import Recipe

JITTER = 0.1  # of a clip's length when clips are sorted: not the same neighbours in every epoch

Place = tuple[int, int]  # (epoch, clip)


@dataclass(frozen=True)
class Schedule:
    """The batches of a run, one after another, each a list of (epoch, clip). A function of its arguments alone."""

    lengths: NDArray[np.int64]  # samples of each clip on disk
    rate: int  # Hz
    recipe: Recipe
    _draws: dict[int, Draws] = field(default_factory=dict, repr=False, compare=False)

    @property
    def steps(self) -> int:
        """Steps of the optimiser in the whole run, at least one."""
        if self.recipe.steps is not None:
            return self.recipe.steps
        assert self.recipe.epochs is not None, "a recipe has steps or epochs"
        batches = sum(len(self.epoch(epoch)) for epoch in range(self.recipe.epochs))
        return max(1, batches // self.recipe.accumulate)

    def batches(self, number: int) -> Iterator[list[Place]]:
        """The first ``number`` batches."""
        endless = ([(epoch, int(clip)) for clip in clips] for epoch in count() for clips in self.epoch(epoch))
        return islice(endless, number)

    def epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """The batches of one epoch: every clip once."""
        recipe = self.recipe
        heard = self.draws(epoch).lengths(self.lengths)
        random = np.random.default_rng((recipe.seed, epoch, augment.ORDER))
        sorted_first = recipe.shortest_first and epoch == 0
        near = heard * (1.0 if sorted_first else random.uniform(1 - JITTER, 1 + JITTER, size=len(heard)))
        order = np.argsort(near, kind="stable")
        batches = list(cut(order, heard, most=round(recipe.seconds * self.rate), clips=recipe.clips))
        if not sorted_first:
            random.shuffle(batches)
        return batches

    def draws(self, epoch: int) -> Draws:
        """What becomes of each clip in ``epoch``; the last ones asked for are kept."""
        if epoch not in self._draws:
            for old in [one for one in self._draws if one < epoch - 1]:
                del self._draws[old]
            wanted, seed = self.recipe.augmentation, self.recipe.seed
            most = round(self.recipe.seconds * self.rate)
            self._draws[epoch] = augment.draw(self.lengths, wanted, seed=seed, epoch=epoch, rate=self.rate, most=most)
        return self._draws[epoch]


def cut(order: NDArray[np.int64], lengths: NDArray[np.int64], *, most: int, clips: int) -> Iterator[NDArray[np.int64]]:
    """``order`` cut into batches of at most ``most`` padded samples and ``clips`` clips, each of one clip at least."""
    first, longest = 0, 0
    for at, clip in enumerate(order):
        longest = max(longest, int(lengths[clip]))
        if at > first and (longest * (at - first + 1) > most or at - first == clips):
            yield order[first:at]
            first, longest = at, int(lengths[clip])
    if len(order):
        yield order[first:]
