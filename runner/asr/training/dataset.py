"""Clips as the model takes them: read from disk when their turn comes, changed, normalised, padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from runner.asr.features import Features
from runner.asr.training import augment
from runner.asr.training.buckets import Place, Schedule
from runner.asr.training.corpus import Corpus
from runner.asr.training.spelling import Spelling

IGNORED = -100  # labels of padding
OWN, ALL = "own", "all"  # clips of a batch that count here, and in all processes together
Batch = dict[str, Any]  # the model's inputs, and for training OWN and ALL


@dataclass(frozen=True, kw_only=True)
class Example:
    """One clip, ready."""

    features: torch.Tensor  # [samples], or [frames, bins]
    labels: torch.Tensor  # [characters]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one process hears of a batch."""

    places: list[Place]
    own: int  # clips of ``places`` that count; none when there are more processes than clips: then one is heard for
    # nothing, as every process must take part in every step
    all: int  # clips of the whole batch


class Heard(Dataset[Example]):
    """The training clips as they are heard in each epoch, by (epoch, clip)."""

    def __init__(self, corpus: Corpus, *, schedule: Schedule, spelling: Spelling, features: Features) -> None:
        self._corpus = corpus
        self._schedule = schedule
        self._spelling = spelling
        self._features = features

    def __getitem__(self, place: Place) -> Example:
        epoch, clip = place
        draws = self._schedule.draws(epoch)
        seed = self._schedule.recipe.seed
        samples = augment.sound(clip, draws, read=self._corpus.samples, seed=seed, epoch=epoch)
        heard = [] if draws.hush[clip] else draws.parts(clip)
        text = " ".join(self._corpus.utterances[part].text for part in heard)
        # what follows a long pause is out of the model's sight, so where clips are joined each one ends its last word
        labels = self._spelling.ids(text, ends=self._schedule.recipe.augmentation.join > 1)
        return Example(features=self._features(samples), labels=torch.tensor(labels))

    def __getitems__(self, turn: Turn) -> tuple[Turn, list[Example]]:
        return turn, [self[place] for place in turn.places]

    def __len__(self) -> int:
        return len(self._corpus)


class Turns(Sampler[Turn]):
    """The batches of a whole run, of each the share of process ``rank`` of ``size``: the steps are the same for any
    number of processes. For the Trainer the run is one epoch, so that to resume is to skip batches."""

    def __init__(self, schedule: Schedule, *, batches: int, rank: int = 0, size: int = 1) -> None:
        self._schedule = schedule
        self._batches = batches
        self._rank = rank
        self._size = size

    def __iter__(self) -> Iterator[Turn]:
        for batch in self._schedule.batches(self._batches):
            own = batch[self._rank :: self._size]  # a batch goes from short to long: all get their part of each
            yield Turn(places=own or batch[:1], own=len(own), all=len(batch))

    def __len__(self) -> int:
        return self._batches


def loader(dataset: Heard, turns: Turns, *, name: str, processes: int) -> DataLoader[Example]:
    """Batches in their order; ``name`` is what the model calls its input."""
    return DataLoader(
        dataset,
        batch_sampler=turns,  # type: ignore[arg-type]  # a turn is more than a list: the dataset takes it whole
        collate_fn=CollateTurn(Collate(name)),  # type: ignore[arg-type]
        num_workers=processes,
        pin_memory=torch.cuda.is_available(),
    )


@dataclass(frozen=True)
class Collate:
    """Examples to one padded batch. The mask tells the loss where each clip ends, also where attention needs none."""

    name: str

    def __call__(self, examples: Sequence[Example]) -> Batch:
        lengths = torch.tensor([len(one.features) for one in examples])
        values = nn.utils.rnn.pad_sequence([one.features for one in examples], batch_first=True)
        mask = torch.arange(values.shape[1]) < lengths[:, None]
        # one column at least: the loss takes no labels of width 0
        labels = [one.labels if len(one.labels) else torch.tensor([IGNORED]) for one in examples]
        return {
            self.name: values,
            "attention_mask": mask.long(),
            "labels": nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        }


@dataclass(frozen=True)
class CollateTurn:
    """A turn to one padded batch, with its counts."""

    collate: Collate

    def __call__(self, heard: tuple[Turn, Sequence[Example]]) -> Batch:
        turn, examples = heard
        return {**self.collate(examples), OWN: turn.own, ALL: turn.all}
