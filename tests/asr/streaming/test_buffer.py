"""The buffer holds what was not forgotten, and takes no more room than that needs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.asr.streaming.buffer import LEAST, Buffer


@given(steps=st.lists(st.tuples(st.integers(0, LEAST), st.integers(0, LEAST)), max_size=8))
def test_any_stretch_that_is_held_is_what_was_heard(steps: list[tuple[int, int]]) -> None:
    buffer, heard = Buffer(), np.empty(0, np.float32)
    for count, kept in steps:
        fresh = np.arange(len(heard), len(heard) + count, dtype=np.float32)
        heard = np.concatenate((heard, fresh))
        buffer.append(fresh)
        expected = max(buffer.first, len(heard) - kept)
        buffer.forget(len(heard) - kept)
        assert (buffer.first, buffer.end) == (expected, len(heard))
        np.testing.assert_array_equal(buffer.stretch(buffer.first, buffer.end), heard[buffer.first :])


def test_room_does_not_grow_with_the_stream() -> None:
    buffer = Buffer()
    sizes = set()
    for _ in range(2000):
        buffer.append(np.zeros(1600, np.float32))
        buffer.forget(buffer.end - LEAST)
        sizes.add(len(buffer._room))
    assert max(sizes) <= 4 * LEAST


def test_what_was_forgotten_cannot_be_had() -> None:
    buffer = Buffer()
    buffer.append(np.zeros(100, np.float32))
    buffer.forget(60)
    assert len(buffer.stretch(60, 100)) == 40
    with pytest.raises(AssertionError, match="50 to 100 is not in 60 to 100"):
        buffer.stretch(50, 100)
