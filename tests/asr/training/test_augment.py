"""Augmentation: a function of seed, epoch and clip, whatever was heard before."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from runner.asr.training import augment
from runner.asr.training.recipe import Augmentation

RATE = 16000
ALL = Augmentation(noise_snr_db=(10, 30), speed=0.1, pause_s=0.3, join=3, silence=0.2)
CLIPS = [np.sin(np.arange(4000 + 500 * n) * (0.02 + 0.01 * n)).astype(np.float32) for n in range(12)]
LENGTHS = np.array([len(clip) for clip in CLIPS])
MOST = 60 * RATE


def heard(clip: int, wanted: Augmentation, *, epoch: int = 0, seed: int = 0) -> NDArray[np.float32]:
    draws = augment.draw(LENGTHS, wanted, seed=seed, epoch=epoch, rate=RATE, most=MOST)
    return augment.sound(clip, draws, read=CLIPS.__getitem__, seed=seed, epoch=epoch)


def test_the_same_clip_of_the_same_epoch_is_the_same_in_any_order() -> None:
    forward = [heard(clip, ALL, epoch=3) for clip in range(12)]
    backward = [heard(clip, ALL, epoch=3) for clip in reversed(range(12))]
    assert all(np.array_equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))


@pytest.mark.parametrize("other", [{"epoch": 4}, {"seed": 1, "epoch": 3}])
def test_another_epoch_or_seed_changes_every_clip(other: dict[str, int]) -> None:
    assert not any(np.array_equal(heard(clip, ALL, epoch=3), heard(clip, ALL, **other)) for clip in range(12))


def test_nothing_wanted_changes_nothing() -> None:
    assert all(np.array_equal(heard(clip, Augmentation()), CLIPS[clip]) for clip in range(12))


def test_the_planned_lengths_are_those_that_are_heard() -> None:
    for epoch in range(5):
        planned = augment.draw(LENGTHS, ALL, seed=0, epoch=epoch, rate=RATE, most=MOST).lengths(LENGTHS)
        found = [len(heard(clip, ALL, epoch=epoch)) for clip in range(12)]
        assert np.abs(planned - found).max() <= 3  # the resampler rounds each part in its own way


def test_noise_is_as_loud_as_asked_for() -> None:
    for epoch in range(5):
        made = heard(0, Augmentation(noise_snr_db=(12, 12)), epoch=epoch)
        noise = made - CLIPS[0]
        ratio = 10 * np.log10(np.mean(np.square(CLIPS[0])) / np.mean(np.square(noise)))
        assert ratio == pytest.approx(12, abs=0.3)


def test_digital_silence_stays_silent() -> None:
    made = augment.with_noise(np.zeros(100, np.float32), 10.0, np.random.default_rng(0))
    assert not made.any()


def test_speed_shortens_and_lengthens_and_moves_the_pitch() -> None:
    factors = augment.draw(np.full(1000, RATE), Augmentation(speed=0.1), seed=0, epoch=0, rate=RATE, most=MOST).speed
    assert factors is not None
    assert 0.9 <= factors.min() < 0.92
    assert 1.08 < factors.max() <= 1.1
    tone = np.sin(2 * np.pi * 400 * np.arange(RATE) / RATE).astype(np.float32)
    fast = augment.played(tone, np.array([1.1]), 0)
    assert len(fast) == pytest.approx(RATE / 1.1, abs=2)
    spectrum = np.abs(np.fft.rfft(fast * np.hanning(len(fast))))
    assert spectrum.argmax() * RATE / len(fast) == pytest.approx(440, abs=2)


def test_joined_clips_come_with_their_partners_and_pauses() -> None:
    draws = augment.draw(LENGTHS, Augmentation(join=4, pause_s=0.1), seed=5, epoch=0, rate=RATE, most=MOST)
    counts = {len(draws.parts(clip)) for clip in range(12)}
    assert counts == {1, 2, 3, 4}
    for clip in range(12):
        made = augment.sound(clip, draws, read=CLIPS.__getitem__, seed=5, epoch=0)
        at = int(draws.pauses[clip, 0])
        assert not made[:at].any()
        assert np.array_equal(made[at : at + len(CLIPS[clip])], CLIPS[clip])
        assert len(made) == draws.lengths(LENGTHS)[clip]


def test_no_clip_is_joined_that_a_batch_has_no_room_for() -> None:
    long = np.array([20, 5, 20, 10] * 50) * RATE
    draws = augment.draw(long, Augmentation(join=4), seed=0, epoch=0, rate=RATE, most=45 * RATE)
    sums = [sum(long[part] for part in draws.parts(clip)) for clip in range(len(long))]
    assert 40 * RATE <= max(sums) <= 45 * RATE
    free = augment.draw(long, Augmentation(join=4), seed=0, epoch=0, rate=RATE, most=MOST * 2)
    assert max(sum(long[part] for part in free.parts(clip)) for clip in range(len(long))) > 45 * RATE


def test_speed_and_pauses_count_and_a_clip_that_is_left_out_shifts_no_pause() -> None:
    wanted, most = Augmentation(join=4, pause_s=0.3, speed=0.1), RATE
    draws = augment.draw(LENGTHS, wanted, seed=0, epoch=0, rate=RATE, most=most)
    planned = draws.lengths(LENGTHS)
    joined = [clip for clip in range(12) if len(draws.parts(clip)) > 1]
    assert joined
    assert planned[joined].max() <= most + 3
    for epoch in range(20):
        draws = augment.draw(LENGTHS, wanted, seed=0, epoch=epoch, rate=RATE, most=most)
        sounds = [augment.sound(clip, draws, read=CLIPS.__getitem__, seed=0, epoch=epoch) for clip in range(12)]
        assert np.abs(draws.lengths(LENGTHS) - [len(one) for one in sounds]).max() <= 4


def test_hushed_clips_are_faint_noise() -> None:
    made = heard(3, Augmentation(silence=1.0))
    assert len(made) == len(CLIPS[3])
    assert made.std() == pytest.approx(augment.HUSH, rel=0.1)
