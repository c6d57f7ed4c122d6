"""Changes to the sound of a clip, drawn from (seed, epoch, clip) alone: the same in any order and in any process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from runner.asr.training.recipe import Augmentation

Samples = NDArray[np.float32]
Lengths = NDArray[np.int64]
HUSH = 1e-3  # amplitude of what stands for silence: -60 dB
EPOCH, SOUND, ORDER = 1, 2, 3  # what a stream of random numbers is for: without it (7, 0) and (7, 0, 0) are the same


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What becomes of each of n clips in one epoch."""

    snr_db: NDArray[np.float64] | None  # [n]
    speed: NDArray[np.float64] | None  # [n], 1 is as it was
    partners: NDArray[np.int64]  # [n, most joined - 1]: clips that come behind, -1 for none
    pauses: Lengths  # [n, most joined + 1]: samples of silence before each part, and at the end
    hush: NDArray[np.bool_]  # [n]: becomes silence

    def parts(self, clip: int) -> list[int]:
        """The clips that are heard for ``clip``, itself first."""
        return [clip, *(int(one) for one in self.partners[clip] if one >= 0)]

    def lengths(self, lengths: Lengths) -> Lengths:
        """Samples of each clip as it is heard; ``lengths`` are those on disk."""
        played = lengths if self.speed is None else np.round(lengths / self.speed).astype(np.int64)
        behind = np.where(self.partners >= 0, played[self.partners], 0).sum(axis=1)
        return np.where(self.hush, lengths, played + behind + self.pauses.sum(axis=1))


def draw(lengths: Lengths, wanted: Augmentation, *, seed: int, epoch: int, rate: int, most: int) -> Draws:
    """The changes to clips of ``lengths`` samples in ``epoch``; ``rate`` in Hz; joined they have ``most`` samples."""
    count, random = len(lengths), np.random.default_rng((seed, epoch, EPOCH))
    snr = None if wanted.noise_snr_db is None else random.uniform(*wanted.noise_snr_db, size=count)
    speed = random.uniform(1 - wanted.speed, 1 + wanted.speed, size=count) if wanted.speed else None
    partners = random.integers(count, size=(count, wanted.join - 1))
    joined = random.integers(wanted.join, size=count)  # further clips
    partners[np.arange(wanted.join - 1) >= joined[:, None]] = -1
    # half of the joints have no pause
    pauses = random.uniform(-1, 1, size=(count, wanted.join + 1)).clip(0) * wanted.pause_s * rate
    played = lengths if speed is None else lengths / speed
    heard = played + pauses.sum(axis=1)
    for column in partners.T:  # no clip is joined that would not fit into a batch
        more = np.where(column >= 0, played[column], 0)
        column[heard + more > most] = -1
        heard += np.where(column >= 0, more, 0)
    # those that are heard come first: `sound` takes the pauses in their order
    partners = np.take_along_axis(partners, np.argsort(partners < 0, axis=1, kind="stable"), axis=1)
    pauses[:, 1:-1] *= partners >= 0
    return Draws(
        snr_db=snr,
        speed=speed,
        partners=partners,
        pauses=np.round(pauses).astype(np.int64),
        hush=random.random(count) < wanted.silence,
    )


def sound(clip: int, draws: Draws, *, read: Callable[[int], Samples], seed: int, epoch: int) -> Samples:
    """What is heard for ``clip``, [samples]; ``read`` gives the sound of a clip on disk."""
    random = np.random.default_rng((seed, epoch, SOUND, clip))
    if draws.hush[clip]:
        return np.float32(HUSH) * random.standard_normal(len(read(clip)), dtype=np.float32)
    made = []
    for place, part in enumerate(draws.parts(clip)):
        made += [np.zeros(draws.pauses[clip, place], np.float32), played(read(part), draws.speed, part)]
    made.append(np.zeros(draws.pauses[clip, -1], np.float32))
    samples = np.concatenate(made)
    return samples if draws.snr_db is None else with_noise(samples, float(draws.snr_db[clip]), random)


def played(samples: Samples, speeds: NDArray[np.float64] | None, clip: int) -> Samples:
    """``samples`` at the clip's speed; its pitch moves with it, as with another speaker."""
    if speeds is None:
        return samples
    changed: Samples = soxr.resample(samples, speeds[clip], 1.0, quality="HQ")
    return changed


def with_noise(samples: Samples, snr_db: float, random: np.random.Generator) -> Samples:
    """White noise ``snr_db`` below the mean power of ``samples``, at no level where digital silence is all there is."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    noise = random.standard_normal(len(samples), dtype=np.float32)
    return samples + noise * np.float32(np.sqrt(power / 10 ** (snr_db / 10)))
