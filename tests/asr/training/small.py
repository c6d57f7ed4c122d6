"""Whole runs of the smallest model on tones, through the same parts as the job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runner.asr import recordings
from runner.asr.training import corpus, session, spelling
from runner.asr.training.corpus import Corpus
from runner.asr.training.loop import Run
from runner.asr.training.network import Architecture, Dropouts
from runner.asr.training.recipe import Augmentation, Lora, Masks, Rate, Recipe
from runner.asr.training.session import Learner
from runner.checkpoints import Checkpoints
from runner.tell import Tell
from tests.asr.training import tones

ARCHITECTURE = Architecture(
    hidden=32,
    layers=1,
    heads=4,
    feed_forward=64,
    conv_channels=(16, 24, 32),
    conv_kernels=(10, 8, 8),
    conv_strides=(5, 8, 8),
    position_kernel=16,
    position_groups=8,
)
RECIPE = Recipe(
    epochs=None,
    steps=12,
    rate=Rate(highest=1e-2, warmup=0.1, hold=0.4, decay="linear", floor=0.02),
    weight_decay=0.01,
    betas=(0.9, 0.98),
    clip_norm=1.0,
    accumulate=1,
    seconds=6.0,
    clips=64,
    shortest_first=False,
    augmentation=Augmentation(noise_snr_db=(20, 40), speed=0.1, pause_s=0.2, join=2, silence=0.05),
    checkpointing=False,
    precision="fp32",
    every_steps=4,
    patience=None,
    seed=0,
)
NO_MASKS = Masks()


class EndedError(Exception):
    """Stands for a cancelled run."""


@dataclass
class Heard:
    """What a run said."""

    lines: list[str] = field(default_factory=list)
    metrics: list[tuple[str, float]] = field(default_factory=list)
    end_at: int | None = None  # step at which it is cancelled

    def tell(self) -> Tell:
        return Tell(progress=self._progress, log=self.lines.append, metric=self._metric, check=lambda: None)

    def _progress(self, done: int, total: int, unit: str) -> None:
        if done == self.end_at:
            raise EndedError

    def _metric(self, name: str, value: float) -> None:
        self.metrics.append((name, value))


def read(folder: Path, name: str, count: int, *, seed: int) -> Corpus:
    """``count`` clips of tones, written and read."""
    table = folder / tones.table(folder, name, tones.texts(count, seed=seed))
    clips = list(recordings.from_manifest(table, name=table.name, root=None, folder=folder, unpacked=folder))
    return corpus.read(
        clips,
        corpus.columns(table, rows=len(clips)),
        field=f"data.{name}",
        normalise=str.lower,
        channels="mix",
        rate=tones.RATE,
        receptive=ARCHITECTURE.receptive,
        threads=1,
    )


def begin(start: Any = ARCHITECTURE, *, masks: Masks = NO_MASKS, wanted: Any = None, dropout: float = 0.1) -> Learner:
    """A model at its beginning."""
    return session.begin(
        start,
        wanted=wanted or (lambda was: was or spelling.built([tones.LETTERS], why="the letters")),
        masks=masks,
        dropouts=Dropouts(values=dropout, layers=0.0),
        seed=0,
        device="cpu",
        threads=1,
    )


def fit(
    folder: Path,
    learner: Learner,
    data: Corpus,
    validation: Corpus,
    *,
    heard: Heard | None = None,
    lora: Lora | None = None,
    freeze: bool = False,
    checked: Callable[[], None] = lambda: None,
    **changes: Any,
) -> Run:
    """Train ``learner`` with ``RECIPE`` and ``changes`` to it; checkpoints go to ``folder``."""
    return session.train(
        learner,
        data=data,
        examiner=learner.examiner(validation, check=checked),
        recipe=replace(RECIPE, **changes),
        lora=lora,
        freeze=freeze,
        device="cpu",
        threads=1,
        checkpoints=Checkpoints(folder),
        tell=(heard or Heard()).tell(),
    )
