"""Streams without an end: memory is bounded, and what is said after an hour is heard as at first."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import pytest

from tests.asr import tiny
from tests.asr.streaming import spelled
from tests.asr.streaming.live import engine, session, silent

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

HOUR_MB = 3600 * 16_000 * 4 / 1e6


def size_mb(one: object) -> float:
    """Of all that it holds."""
    return len(pickle.dumps(one, protocol=5)) / 1e6


@pytest.mark.slow
@pytest.mark.parametrize("refine", [True, False])
def test_an_hour_is_heard_in_bounded_memory(refine: bool) -> None:
    """A minute without a pause, a minute with pauses, a minute of silence, twenty times over."""
    phrase = " ".join(["bala", "ç", "lab", "all"] * 2) + " "
    minutes = [
        [phrase] * 25,
        [phrase, ""] * 15,
        [""] * 40,
    ]
    one = spelled.session(spelled.Spelled(), refine=refine)
    words, held, said = [], [], []
    for minute in range(60):
        for part in minutes[minute % 3]:
            partial = one.feed(spelled.sound(part) if part else spelled.silence(1.5))
            words += [word.word for word in partial.committed]
            said += part.split()
        held.append(size_mb(one))
    last = one.finish()
    assert one._buffer.end / 16_000 > 3600 * 0.95
    assert [*words, *(word.word for word in last.committed)] == said
    assert max(held) < (6 if refine else 1) < HOUR_MB / 30
    assert max(held[30:]) <= max(held[:30])


@pytest.mark.parametrize("refine", [True, False])
def test_memory_of_a_real_model_does_not_grow_with_the_stream(refine: bool, tmp_path: Path) -> None:
    made = engine(tiny.ctc(tmp_path / "model", "wav2vec2"))
    one = session(made, chunk_s=2.0, left_s=0.1, lookahead_s=0.1, longest_s=6.0, refine=refine)
    pieces = [tiny.sound(10, seed=1), silent(10)]
    tracemalloc.start()
    try:
        held = []
        for minute in range(4):
            for piece in pieces * 3:
                one.feed(piece)
            if minute in {1, 3}:
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 200_000, "two further minutes are 7.7 MB of samples"
