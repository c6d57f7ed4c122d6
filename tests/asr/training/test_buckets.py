"""Batches by seconds: within their size, every clip once an epoch, of like length, the same each time."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from runner.asr.training.buckets import Schedule
from runner.asr.training.dataset import Turns
from runner.asr.training.recipe import Augmentation
from tests.asr.training.small import RECIPE

RATE = 16000
LENGTHS = np.random.default_rng(0).integers(RATE // 2, 12 * RATE, size=300)
PLAIN = replace(RECIPE, augmentation=Augmentation(), seconds=30.0, clips=16)


def schedule(**changes: object) -> Schedule:
    return Schedule(LENGTHS, rate=RATE, recipe=replace(PLAIN, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_every_clip_once_and_no_batch_too_large(epoch: int) -> None:
    batches = schedule().epoch(epoch)
    assert sorted(chain.from_iterable(batches)) == list(range(300))
    assert all(len(batch) * LENGTHS[batch].max() <= 30 * RATE and len(batch) <= 16 for batch in batches)


def test_little_is_padded_and_neighbours_change() -> None:
    first, second = schedule().epoch(0), schedule().epoch(1)
    padded = sum(len(batch) * LENGTHS[batch].max() for batch in first)
    assert padded / LENGTHS.sum() < 1.2
    together = {tuple(sorted(batch)) for batch in first} & {tuple(sorted(batch)) for batch in second}
    assert len(together) < len(first) / 4


def test_a_clip_longer_than_a_batch_is_one_by_itself() -> None:
    assert all(len(batch) == 1 for batch in schedule(seconds=0.1).epoch(0))


def test_the_first_epoch_may_go_from_short_to_long() -> None:
    longest = [LENGTHS[batch].max() for batch in schedule(shortest_first=True).epoch(0)]
    assert longest == sorted(longest)
    later = [LENGTHS[batch].max() for batch in schedule(shortest_first=True).epoch(1)]
    assert later != sorted(later)


def test_epochs_are_counted_in_steps() -> None:
    asked = schedule(steps=None, epochs=3)
    batches = sum(len(asked.epoch(epoch)) for epoch in range(3))
    assert asked.steps == batches
    assert schedule(steps=None, epochs=3, accumulate=4).steps == batches // 4
    assert schedule(steps=None, epochs=1, accumulate=10_000).steps == 1
    heard = [place for batch in asked.batches(batches) for place in batch]
    assert sorted(heard) == [(epoch, clip) for epoch in range(3) for clip in range(300)]


def test_the_batches_are_the_same_again_and_others_with_another_seed() -> None:
    everything = replace(RECIPE.augmentation, join=3)
    assert list(schedule(augmentation=everything).batches(80)) == list(schedule(augmentation=everything).batches(80))
    assert list(schedule().batches(80)) != list(schedule(seed=1).batches(80))


def test_joined_clips_count_with_all_their_seconds() -> None:
    asked = schedule(augmentation=Augmentation(join=4))
    lengths = asked.draws(0).lengths(LENGTHS)
    assert lengths.sum() > 1.8 * LENGTHS.sum()
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= 30 * RATE for batch in asked.epoch(0))


@pytest.mark.parametrize("size", [2, 3, 64])
def test_processes_share_every_batch(size: int) -> None:
    """Each clip counts in one of them; one that has none of a batch hears its first for nothing."""
    whole = list(schedule().batches(9))
    shares = [list(Turns(schedule(), batches=9, rank=rank, size=size)) for rank in range(size)]
    assert {len(turns) for turns in shares} == {9}
    for number, batch in enumerate(whole):
        turns = [share[number] for share in shares]
        assert sorted(place for turn in turns for place in turn.places[: turn.own]) == sorted(batch)
        assert max(turn.own for turn in turns) - min(turn.own for turn in turns) <= 1
        assert {turn.all for turn in turns} == {len(batch)}
        assert all(turn.places == batch[:1] for turn in turns if not turn.own)
