"""Clips as the model takes them: read from disk when their turn comes, changed, normalised, padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from runner.asr.features import Features
from runner.asr.training import augment
from runner.asr.training.buckets import Place, Schedule
from runner.asr.training.corpus import Corpus
from runner.asr.training.spelling import Spelling

IGNORED = -100  # labels of padding
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One clip, ready."""

    features: torch.Tensor  # [samples], or [frames, bins]
    labels: torch.Tensor  # [characters]


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
        return Example(features=self._features(samples), labels=torch.tensor(self._spelling.ids(text)))

    def __len__(self) -> int:
        return len(self._corpus)


class Turns(Sampler[list[Place]]):
    """The batches of a whole run. For the Trainer the run is one epoch, so that to resume is to skip batches."""

    def __init__(self, schedule: Schedule, *, batches: int) -> None:
        self._schedule = schedule
        self._batches = batches

    def __iter__(self) -> Iterator[list[Place]]:
        return self._schedule.batches(self._batches)

    def __len__(self) -> int:
        return self._batches


def loader(dataset: Heard, turns: Turns, *, name: str, processes: int) -> DataLoader[Example]:
    """Batches in their order; ``name`` is what the model calls its input."""
    return DataLoader(
        dataset,
        batch_sampler=turns,
        collate_fn=Collate(name),
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
