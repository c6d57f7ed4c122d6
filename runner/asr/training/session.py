"""One run from end to end: the model and its spelling, training, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runner import ranks
from runner.asr import alphabet, features
from runner.asr.acoustic import SMALL, features_of, settle_arithmetic
from runner.asr.features import Features
from runner.asr.pieces import Source
from runner.asr.training import loop, network, spelling
from runner.asr.training.buckets import Schedule
from runner.asr.training.convolutions import features_last
from runner.asr.training.corpus import Corpus
from runner.asr.training.dataset import Heard, Turns
from runner.asr.training.evaluation import Examiner
from runner.asr.training.loop import Run
from runner.asr.training.network import Architecture, Dropouts
from runner.asr.training.recipe import Lora, Masks, Recipe
from runner.asr.training.spelling import Spelling
from runner.checkpoints import Checkpoints
from runner.tell import Tell

READERS = 8  # processes that read audio for a GPU


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A model on its way."""

    model: Any
    features_last: bool  # whether its convolutions were changed for speed
    spelling: Spelling
    features: Features
    name: str  # what the model calls its input
    mask: bool  # whether padding can be masked for it
    base: Source | None  # None: made here
    was: Spelling | None  # that of a base with a trained head and a vocabulary

    @property
    def comparable(self) -> bool:
        """Whether the base writes the same characters, so that its errors can be set beside the new ones."""
        return self.was is not None and spelling.same(self.was, self.spelling)

    def frames(self, samples: int) -> int:
        """Frames that the model gives for ``samples``."""
        if self.base is not None and not self.base.waveform:
            return max(0, (samples - self.base.receptive) // self.base.stride + 1)
        return int(self.model._get_feat_extract_output_lengths(samples))

    def examiner(self, corpus: Corpus, *, check: Callable[[], None]) -> Examiner:
        """Who measures this model on ``corpus``."""
        return Examiner(corpus, features=self.features, name=self.name, mask=self.mask, check=check)


def begin(
    start: Source | Architecture,
    *,
    wanted: Callable[[Spelling | None], Spelling],
    masks: Masks,
    dropouts: Dropouts,
    seed: int,
    device: str,
    threads: int,
) -> Learner:
    """The model as training begins, on its device.

    ``wanted`` gives the spelling to train, from that of the base where it has one. Raises JobError (ModelInvalid).
    """
    settle_arithmetic()
    torch.manual_seed(seed)
    base = start if isinstance(start, Source) else None
    was = None
    if isinstance(start, Architecture):
        new = wanted(None)
        model = network.made(start, vocabulary=len(new.alphabet.texts), masks=masks, dropouts=dropouts)
    else:
        model, trained = network.loaded(start, masks=masks, dropouts=dropouts)
        was = _spelling(model, start) if trained and alphabet.exists(start.folder) else None
        new = wanted(was)
        if new is not was:
            rows = spelling.shared(was, new) if was is not None else {}
            network.fit_head(model, rows, size=len(new.alphabet.texts), blank=new.alphabet.blank)
    if masks.time > 0:
        network.clamp_masks(model, frames=masks.time_frames)
    if device == "cpu":
        torch.set_num_threads(1 if model.config.hidden_size < SMALL else threads)
    waveform = base is None or base.waveform
    model.to(device)
    return Learner(
        model=model,
        features_last=features_last(model),
        spelling=new,
        features=_features(base),
        name="input_values" if waveform else "input_features",
        mask=base is None or base.mask,
        base=base,
        was=was,
    )


def train(
    learner: Learner,
    *,
    data: Corpus,
    examiner: Examiner,
    recipe: Recipe,
    lora: Lora | None,
    freeze: bool,
    device: str,
    threads: int,
    checkpoints: Checkpoints,
    tell: Tell,
) -> Run:
    """Train the learner's model in place; it ends with the weights that were measured best, LoRA merged into them."""
    if freeze and network.has_convolutions(learner.model):
        learner.model.freeze_feature_encoder()
    torch.manual_seed(recipe.seed)  # whatever was done with the model before
    tuner = network.add_lora(learner.model, lora) if lora is not None else None
    schedule = Schedule(data.lengths, rate=data.rate, recipe=recipe)
    steps = schedule.steps
    run = loop.train(
        learner.model,
        data=Heard(data, schedule=schedule, spelling=learner.spelling, features=learner.features),
        turns=Turns(schedule, batches=steps * recipe.accumulate, rank=ranks.rank(), size=ranks.size()),
        steps=steps,
        recipe=recipe,
        spelling=learner.spelling,
        examiner=examiner,
        name=learner.name,
        device=device,
        processes=0 if device == "cpu" else min(READERS, threads),
        checkpoints=checkpoints,
        tell=tell,
    )
    if tuner is not None:
        tuner.merge_and_unload()
    return run


def save(learner: Learner, folder: Path, *, masks: Masks) -> None:
    """The model as transformers and `asr-transcribe` load it: weights, configuration, processor, vocabulary."""
    model, base = learner.model, learner.base
    if masks.time > 0:
        model.config.mask_time_length = masks.time_frames  # not what the last batch was short enough for
    network.save(model, folder, base=base)
    if learner.spelling is learner.was and base is not None and base.adapter is None:
        network.copy(Path(base.folder), folder, network.TOKENIZER_FILES)
    else:
        spelling.write(learner.spelling, folder)


def _spelling(model: Any, source: Source) -> Spelling:
    read = alphabet.load(
        source.folder,
        vocab_size=model.lm_head.out_features,
        blank=model.config.pad_token_id,
        language=source.adapter,
    )
    return spelling.kept(read, name=source.folder)


def _features(base: Source | None) -> Features:
    return features.waveform(normalise=True) if base is None else features_of(base)
