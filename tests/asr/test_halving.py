"""Out of memory: the batch halves, the size that worked is kept, and everything else is one window's own trouble."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from runner.asr.halving import Halving, out_of_memory
from runner.asr.trouble import RecordingError

ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 GB"),
    RuntimeError("std::bad_alloc"),
)


class Model:
    """Gives each window's sum; fails above ``most`` padded samples, and on windows that hold a NaN."""

    def __init__(self, most: int, error: Exception = ERRORS[0]) -> None:
        self.most, self.error = most, error
        self.asked: list[int] = []

    def __call__(self, windows: Sequence[np.ndarray]) -> list[float]:
        self.asked.append(len(windows))
        if max(map(len, windows)) * len(windows) > self.most:
            raise self.error
        if any(np.isnan(window).any() for window in windows):
            raise ValueError("bad window\nand more")
        return [float(window.sum()) for window in windows]


def windows(*lengths: int) -> list[np.ndarray]:
    return [np.full(length, 1.0, np.float32) for length in lengths]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_batch_that_is_too_large_is_halved(error: Exception) -> None:
    model = Model(200, error)
    halving = Halving(model)
    assert halving(windows(100, 90, 80, 70, 60)) == [100, 90, 80, 70, 60]
    assert model.asked == [5, 3, 2, 1, 2]
    assert (halving.count, halving.most) == (2, 200)


def test_the_size_that_worked_is_kept() -> None:
    model = Model(200)
    halving = Halving(model)
    halving(windows(100, 100, 100, 100))
    assert (halving.count, halving.most) == (1, 200)
    model.asked.clear()
    assert halving(windows(90, 90, 90, 90)) == [90] * 4
    assert model.asked == [2, 2], "the size that had failed was tried again"
    assert halving.count == 1


def test_a_size_that_an_earlier_worker_kept_to_is_kept_from_the_start() -> None:
    model = Model(200)
    halving = Halving(model, most=200)
    assert halving(windows(100, 100, 100, 100)) == [100] * 4
    assert model.asked == [2, 2]
    assert (halving.count, halving.most) == (0, 200)
    assert isinstance(halving(windows(300))[0], RecordingError), "one window is tried whatever the limit"


def test_a_window_that_does_not_fit_alone_has_a_status() -> None:
    halving = Halving(Model(200))
    small, large, other = halving(windows(50, 300, 60))
    assert (small, other) == (50, 60)
    assert isinstance(large, RecordingError)
    assert (large.status, large.name) == ("out_of_memory", "out_of_memory")
    assert "300 samples" in large.message


def test_another_error_is_found_in_its_window() -> None:
    bad = windows(10, 20, 30)
    bad[1][3] = np.nan
    first, trouble, last = Halving(Model(200))(bad)
    assert (first, last) == (10, 30)
    assert isinstance(trouble, RecordingError)
    assert (trouble.status, trouble.name, trouble.message) == ("failed", "ValueError", "bad window")


def test_no_windows_ask_for_nothing() -> None:
    model = Model(0)
    assert Halving(model)([]) == []
    assert model.asked == []


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("out of memory"))
