"""How much audio a batch holds."""

from __future__ import annotations

import pytest

from runner.asr import sizing
from runner.asr.probe import Memory


@pytest.mark.parametrize(
    ("free_gb", "second_mb", "seconds"),
    [
        (10, 20, 300),  # 0.6 * 10 GB / 20 MB
        (140, 20, 1200),  # no gain beyond
        (0.5, 20, 30),  # should it not fit, the batch is halved
        (10, 200, 30),
    ],
)
def test_what_fits_on_a_gpu(free_gb: float, second_mb: float, seconds: float) -> None:
    size = sizing.on_gpu(Memory(free_bytes=round(free_gb * 1e9), second_bytes=second_mb * 1e6))
    assert size.seconds == seconds
    assert f"{second_mb:.1f} MB a second" in size.why


def test_what_the_spec_asks_for_is_taken() -> None:
    assert sizing.asked(7.5).size(rate=16_000, windows=3, packed=True).samples == 120_000


def test_where_the_probe_measured_nothing_batches_start_small() -> None:
    assert sizing.on_gpu(None).seconds == sizing.GPU_LEAST_S


@pytest.mark.parametrize(
    ("second_mb", "seconds", "deal"),
    [
        (0.01, 1200, 22),  # an alphabet
        (0.2, 1200, 1),  # one layer of wav2vec2-large
        (4.9, 55, 1),  # all of them: a batch of 20 minutes would take 6 GB
    ],
)
def test_output_is_bounded(second_mb: float, seconds: float, deal: int) -> None:
    size = sizing.bounded(sizing.asked(1200), second_bytes=second_mb * 1e6)
    assert size.seconds == pytest.approx(seconds, rel=0.01)
    assert sizing.handed_over(size, second_bytes=second_mb * 1e6) == deal
    assert size.seconds * second_mb * 1e6 <= sizing.HELD_BYTES
    assert ("of output a second" in size.why) == (seconds < 1200)
