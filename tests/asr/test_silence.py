"""The energy floor, by the second."""

from __future__ import annotations

import numpy as np
import pytest

from runner.asr.silence import blank_rows, hush, loud

RATE, STRIDE = 16000, 320


def level(db: float, seconds: float) -> np.ndarray:
    """A tone whose RMS is ``db`` below full scale."""
    t = np.arange(round(seconds * RATE)) / RATE
    return (10 ** (db / 20) * np.sqrt(2) * np.sin(2 * np.pi * 400 * t)).astype(np.float32)


def heard(samples: np.ndarray, floor_db: float = -60.0) -> np.ndarray:
    return loud(samples, stride=STRIDE, rate=RATE, floor_db=floor_db)


@pytest.mark.parametrize("db, expected", [(-20, True), (-59, True), (-61, False), (-90, False)])
def test_the_floor_is_where_it_says(db: float, expected: bool) -> None:
    assert heard(level(db, 1.0)).tolist() == [expected] * 50


def test_sound_reaches_a_fifth_of_a_second() -> None:
    samples = np.concatenate([np.zeros(RATE), level(-20, 0.1), np.zeros(RATE)]).astype(np.float32)
    frames = np.flatnonzero(heard(samples))
    assert (frames[0], frames[-1]) == (50 - 10, 54 + 10)
    assert len(frames) == 25


def test_digital_silence_is_below_any_floor() -> None:
    assert not heard(np.zeros(RATE, np.float32), floor_db=-120).any()


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 16001])
def test_there_is_a_frame_for_every_sample(samples: int) -> None:
    assert len(heard(np.ones(samples, np.float32))) == -(-samples // STRIDE)


def test_blank_rows_are_certain() -> None:
    rows = blank_rows(2, vocab=3, blank=2)
    np.testing.assert_array_equal(np.exp(rows), [[0, 0, 1], [0, 0, 1]])
    assert np.isfinite(rows).all()


def test_a_pause_is_blank_but_for_one_delimiter() -> None:
    rows = np.zeros((9, 3), np.float32)
    loud_ = np.array([True, False, False, False, True, True, False, True, False])
    hush(rows, loud_, blank=0, delimiter=2)
    assert rows.argmax(axis=1).tolist() == [0, 0, 2, 0, 0, 0, 2, 0, 2]
    assert (rows[loud_] == 0).all(), "a loud frame was touched"
    assert np.exp(rows[~loud_]).sum(axis=1).tolist() == [1.0] * 5


def test_without_a_delimiter_a_pause_is_blank() -> None:
    rows = np.zeros((3, 2), np.float32)
    hush(rows, np.zeros(3, np.bool_), blank=1, delimiter=None)
    assert rows.argmax(axis=1).tolist() == [1, 1, 1]
