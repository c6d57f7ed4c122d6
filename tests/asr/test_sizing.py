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
