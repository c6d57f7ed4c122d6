"""Which variant is picked, what is said when none meets the limits, and what a speed-up is."""

from __future__ import annotations

from dataclasses import replace

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


def silent(texts: list[str], said: dict[int, str]) -> Measured:
    """Only the recordings in ``said`` could be transcribed."""
    scorer = Scorer()
    scored = {k: scorer.add(texts[k], text, key=str(k)) for k, text in said.items()}
    return Measured(scored=scored, scores=scorer.result(), failed=len(texts) - len(said), precision="fp32")


def test_what_only_the_variant_cannot_transcribe_is_all_wrong() -> None:
    texts = ["a b", "c d e", "f"]
    before = heard(texts, ["a b", "c d x", "f g h"])
    found = compare.rise(before, silent(texts, {0: "a b"}))
    assert (found.wer, found.changed, found.recordings, found.lost) == (2 / 6, 2, 3, 2)  # "f" was wrong twice before
    nothing = compare.rise(before, silent(texts, {}))
    assert (nothing.wer, nothing.lost) == (4 / 6, 3)
    gained = compare.rise(silent(texts, {0: "a b"}), before)
    assert (gained.wer, gained.recordings) == (0, 1)


@pytest.mark.parametrize("by", ["smallest", "fastest", "most_accurate"])
def test_a_variant_that_transcribes_nothing_is_not_picked(by: compare.Pick) -> None:
    texts = ["a b", "c d"]
    before = heard(texts, texts)
    deaf = replace(row("deaf", size=1, speedup=99), rise=compare.rise(before, silent(texts, {})))
    assert compare.pick([deaf, *ROWS], by, limits=NONE)[0].name != "deaf"
    assert compare.pick([deaf, *ROWS], by, limits=NONE | {"max_wer_rise": 0.5})[0].name != "deaf"
    assert compare.pick([deaf], by, limits=NONE | {"max_wer_rise": 0.5})[1]


def test_the_most_accurate_is_so_on_the_recordings_of_the_unquantised_model() -> None:
    """What a variant fails on is in none of its rates."""
    texts = ["a b", "c d"]
    before = heard(texts, ["a x", "c d"])
    half = replace(row("half"), measured=silent(texts, {1: "c d"}))
    half = replace(half, rise=compare.rise(before, half.measured))
    whole = replace(row("whole", size=200), measured=before, rise=compare.rise(before, before))
    assert half.measured.wer < whole.measured.wer
    assert compare.pick([half, whole], "most_accurate", limits=NONE)[0].name == "whole"
