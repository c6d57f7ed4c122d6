from __future__ import annotations

from runner.schema.words import size


def test_sizes() -> None:
    assert [size(n) for n in (0, 512, 2_700_000, 1_261_900_000, None)] == ["0 B", "512 B", "2.7 MB", "1.26 GB", "–"]
    assert [size(n) for n in (999_499, 999_700, 3_456 * 10**9)] == ["999 kB", "1 MB", "3.46 TB"]
