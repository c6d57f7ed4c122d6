"""Variants are made and timed in spite of recordings that cannot be read, and of what a library finds to object to."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from runner.asr import stored
from runner.asr.pieces import Piece
from runner.asr.quantise.maker import Maker, Making
from runner.asr.quantise.stopwatch import Stopwatch, Timing
from runner.schema.errors import JobError
from tests.asr.variants.test_variants import QUICKSTART, piece, source

MODEL = source(QUICKSTART)


def gone(folder: Path) -> Piece:
    """A recording that is away since its header was read."""
    return replace(piece(folder), path=str(folder / "gone.wav"))


def timing(*pieces: Piece) -> Timing:
    return Timing(source=MODEL, precision="fp32", device="cpu", threads=1, pieces=pieces, rounds=1)


def making(folder: Path, *pieces: Piece) -> Making:
    return Making(source=MODEL, parameters=7, threads=1, group=16, calibration=pieces, folder=folder / "made")


def test_what_cannot_be_read_is_not_timed(tmp_path: Path) -> None:
    short = replace(piece(tmp_path), last=MODEL.receptive - 1)
    (laps,) = Stopwatch(timing(gone(tmp_path), short, piece(tmp_path)))({"x": MODEL})
    assert laps.audio_s == (4.0,)
    with pytest.raises(JobError, match=r"none of the 2 recordings to time on can be heard: gone\.wav: ") as caught:
        Stopwatch(timing(gone(tmp_path), short))
    assert caught.value.failure == "DataInvalid"


def test_what_cannot_be_read_is_not_calibrated_with(tmp_path: Path) -> None:
    few, whole = Maker(making(tmp_path, gone(tmp_path), piece(tmp_path))), Maker(making(tmp_path, piece(tmp_path)))
    written = []
    for maker in (few, whole):
        done = maker("int8-static")
        assert done.status == "ok", done
        (file,) = (tmp_path / "made" / "int8-static").glob("*.safetensors")
        written.append(file.read_bytes())
    assert written[0] == written[1]
    none = Maker(making(tmp_path, gone(tmp_path)))("int8-static")
    assert (none.status, none.why[:56]) == ("failed", "none of the 1 recordings to calibrate with can be heard:")


class Surprise:
    """A variant whose making raises."""

    WHAT = "x"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def quantise(self, *_: Any) -> None:
        raise self._error


def test_a_surprise_of_a_library_fails_that_variant_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker(making(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(stored, "code", lambda _: Surprise(RuntimeError("no such operator\nand pages more")))
        done = maker("onnx-int8")
    assert (done.status, done.why) == ("failed", "RuntimeError: no such operator")
    assert not list((tmp_path / "made").iterdir())
    assert maker("fp16").status == "ok"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_trouble_of_the_machine_is_not_the_variant_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(stored, "code", lambda _: Surprise(error))
    with pytest.raises(type(error)):
        Maker(making(tmp_path))("fp16")
