"""Formats that libsndfile does not read (m4a, webm, video), through the `ffmpeg` and `ffprobe` programs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from functools import cache
from threading import Timer

import numpy as np
from numpy.typing import NDArray

from runner.asr.trouble import unreadable

PROBE_LIMIT_S = 60
READ_LIMIT_S = 600  # one window; nobody waits for ever for a program that hangs


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The first audio stream; ``frames`` is an estimate from the container's duration."""

    frames: int
    rate: int  # Hz
    channels: int


@cache
def installed() -> bool:
    """Whether both programs are on the PATH."""
    return shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None


def probe(path: str) -> Shape:
    """The shape of the first audio stream of ``path``. Raises RecordingError."""
    ask = "stream=sample_rate,channels,duration:format=duration"
    command = ["ffprobe", *_QUIET, "-select_streams", "a:0", "-show_entries", ask, "-of", "json", "-i", f"file:{path}"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise unreadable("timeout", f"ffprobe took more than {PROBE_LIMIT_S} s") from None
    if done.returncode != 0:
        raise unreadable("unsupported_format", f"neither soundfile nor ffmpeg reads it ({_last_line(done.stderr)})")
    try:
        answer = json.loads(done.stdout)
        stream = answer["streams"][0]
        seconds = float(stream.get("duration") or answer["format"]["duration"])
        rate = int(stream["sample_rate"])
        return Shape(frames=round(seconds * rate), rate=rate, channels=int(stream["channels"]))
    except (ValueError, KeyError, IndexError, TypeError):
        raise unreadable("no_audio", "ffmpeg finds no audio stream with a known length in it") from None


def blocks(path: str, *, start_s: int, rate: int, channels: int) -> Generator[NDArray[np.float32]]:
    """Blocks of one second, [frames, channels] in [-1, 1], from ``start_s`` on. Raises RecordingError at a failure."""
    shape = ["-ac", str(channels), "-ar", str(rate)]
    source = ["-ss", str(start_s), "-i", f"file:{path}", "-map", "0:a:0"]
    command = ["ffmpeg", *_QUIET, "-nostdin", *source, *shape, "-f", "f32le", "pipe:1"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        timer = Timer(READ_LIMIT_S, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            while data := process.stdout.read(rate * channels * 4):
                whole = len(data) // (4 * channels) * 4 * channels
                yield np.frombuffer(data[:whole], dtype="<f4").reshape(-1, channels)
            if process.wait(timeout=READ_LIMIT_S) != 0:
                raise unreadable("corrupt", "ffmpeg could not decode it to its end")
        finally:
            timer.cancel()
            process.kill()  # nothing happens when it has ended


# local files only: a playlist must not make ffmpeg fetch addresses
_QUIET = ("-v", "error", "-protocol_whitelist", "file,pipe")


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][-200:] if lines else "no reason given"
