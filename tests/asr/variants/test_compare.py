"""Which variant is picked, what is said when none meets the limits, and what a speed-up is."""

from __future__ import annotations

import pytest

from runner.asr.quantise import compare
from runner.asr.quantise.compare import Measured, Rise, Row
from runner.asr.quantise.maker import Done
from runner.asr.quantise.stopwatch import Laps
from runner.asr.score import Scorer

NONE = {"max_wer_rise": None, "min_compression": None, "min_speedup": None}


def row(name: str, *, rise: float = 0.0, size: int = 100, speedup: float = 1.0) -> Row:
    laps = Laps(variant=name, audio_s=(1.0,), baseline=((speedup,),), seconds=((1.0,),), threads=1)
    return Row(
        done=Done(name=name, status="ok", bytes=size),
        measured=heard(["a b c d"], [" ".join("abcd"[: round(4 - 100 * rise)])]),
        rise=Rise(wer=rise, interval=None, changed=0, recordings=1),
        laps=laps,
        compression=400 / size,
    )


def heard(texts: list[str], said: list[str]) -> Measured:
    scorer = Scorer()
    scored = {k: scorer.add(t, s, key=str(k)) for k, (t, s) in enumerate(zip(texts, said, strict=True))}
    return Measured(scored=scored, scores=scorer.result(), failed=0, precision="fp32")


ROWS = [
    row("exact", size=200, speedup=1.1),
    row("fast", rise=0.01, size=110, speedup=2.6),
    row("tiny", rise=0.03, size=60),
]


@pytest.mark.parametrize(
    ("by", "limits", "name"),
    [
        ("smallest", {}, "tiny"),
        ("smallest", {"max_wer_rise": 0.02}, "fast"),
        ("smallest", {"max_wer_rise": 0.0}, "exact"),
        ("fastest", {}, "fast"),
        ("most_accurate", {}, "exact"),
        ("most_accurate", {"min_compression": 3.5}, "fast"),
        ("smallest", {"min_speedup": 2.0}, "fast"),
    ],
)
def test_the_best_of_those_within_the_limits(by: compare.Pick, limits: dict[str, float], name: str) -> None:
    picked, unmet = compare.pick(ROWS, by, limits=NONE | limits)
    assert (picked.name, unmet) == (name, [])


@pytest.mark.parametrize(
    ("limits", "name", "said"),
    [
        (
            {"max_wer_rise": -0.01},
            "exact",
            "no variant meets max_wer_rise -0.01: exact comes nearest with 0, 0.01 too high",
        ),
        ({"min_speedup": 3.0}, "fast", "no variant meets min_speedup 3: fast comes nearest with 2.6, 0.4 too low"),
        (
            {"min_compression": 8.0},
            "tiny",
            "no variant meets min_compression 8: tiny comes nearest with 6.667, 1.333 too low",
        ),
        (
            {"min_compression": 6.0, "min_speedup": 2.0},
            "fast",
            "each limit is met by some variant, but none meets all of them",
        ),
    ],
)
def test_what_none_meets_is_said_with_the_nearest(limits: dict[str, float], name: str, said: str) -> None:
    picked, unmet = compare.pick(ROWS, "smallest", limits=NONE | limits)
    assert (picked.name, unmet) == (name, [said])


def test_a_speed_up_holds_each_window_at_its_best() -> None:
    """A machine that others use makes single laps slow: those do not count."""
    calm = Laps(variant="x", audio_s=(2, 3), baseline=((2, 3), (2, 3)), seconds=((1, 1), (1, 1)), threads=1)
    busy = Laps(variant="x", audio_s=(2, 3), baseline=((9, 3), (2, 7)), seconds=((1, 4), (8, 1)), threads=1)
    assert calm.speedup == busy.speedup == 2.5


def test_the_rise_is_paired_by_recording() -> None:
    before, after = heard(["a b", "c d", "e f"], ["a b", "c x", "e f"]), heard(["a b", "c d", "e f"], ["a", "c d", "e"])
    found = compare.rise(before, after)
    assert (found.wer, found.changed, found.recordings) == (pytest.approx(1 / 6), 3, 3)
    assert found.interval is not None and found.interval[0] < found.wer < found.interval[1]
    same = compare.rise(before, before)
    assert (same.wer, same.interval, same.changed) == (0, (0, 0), 0)
